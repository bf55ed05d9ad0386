"""AsyncSSH through the gate: `with_asyncssh.py commands|files|refused`. Who and where is in the environment."""

import asyncio
import filecmp
import os
import sys

import asyncssh

WORK = os.environ["WORK"]


def connect(**more):
    return asyncssh.connect(
        os.environ["GATE"],
        port=int(os.environ["PORT"]),
        username=os.environ["DOOR"],
        client_keys=[os.environ["KEY"]],
        known_hosts=os.environ["KNOWN_HOSTS"],
        agent_path=None,
        config=None,
        login_timeout=30,
        keepalive_interval=5,
        **more,
    )


async def commands():
    async with connect(rekey_bytes="1M") as gate:
        done = await gate.run("id -un; echo apart >&2; exit 42")
        assert (done.exit_status, done.stdout, done.stderr) == (42, "deploy\n", "apart\n"), done
        done = await gate.run('printf %s "$LC_TIDE"', env={"LC_TIDE": "high"})
        assert done.stdout == "high", done

        sent = os.urandom(12 << 20)  # with new keys after each MiB
        done = await gate.run("cat", input=sent, encoding=None, check=True)
        assert done.stdout == sent

        # Half-closed: the command ends its output, and reads on.
        process = await gate.create_process("echo first; exec >&-; cat >half; exit 7")
        assert await process.stdout.readline() == "first\n"
        process.stdin.write("after the end of output")
        process.stdin.write_eof()
        await process.wait_closed()
        assert process.exit_status == 7, process.exit_status
        assert (await gate.run("cat half", check=True)).stdout == "after the end of output"

        # A signal, once the command says that it waits for one.
        process = await gate.create_process("echo on; exec sleep 600")
        assert await process.stdout.readline() == "on\n"
        process.send_signal("TERM")
        await process.wait_closed()
        assert process.exit_signal[0] == "TERM", process.exit_signal

        process = await gate.create_process(term_type="xterm", term_size=(97, 41))
        process.stdin.write("stty size; exit 5\n")
        output = await process.stdout.read()
        await process.wait_closed()
        assert "41 97" in output and process.exit_status == 5, (output, process.exit_status)

        async def one(n):
            done = await gate.run(f"echo {n}; exit {n}")
            return done.exit_status, done.stdout

        assert await asyncio.gather(*map(one, range(16))) == [(n, f"{n}\n") for n in range(16)]


async def files():
    os.makedirs(f"{WORK}/tree/deep/er")
    for name, size in {"a": 0, "deep/b c": 1, "deep/er/größe": 3 << 20}.items():
        with open(f"{WORK}/tree/{name}", "wb") as file:
            file.write(os.urandom(size))
    async with connect() as gate:
        async with gate.start_sftp_client() as sftp:
            await sftp.put(f"{WORK}/tree", "tree", recurse=True, preserve=True)
            await sftp.get("tree", f"{WORK}/back", recurse=True, preserve=True)
            same(f"{WORK}/tree", f"{WORK}/back")
            assert await sftp.glob("tree/d*/*c") == ["tree/deep/b c"]
            assert (await sftp.statvfs(".")).bsize > 0
            await sftp.rmtree("tree")
            assert not await sftp.exists("tree")
        # The old scp protocol, on a channel of the same connection.
        await asyncssh.scp(f"{WORK}/tree", (gate, "scp-tree"), recurse=True, preserve=True)
        await asyncssh.scp((gate, "scp-tree"), f"{WORK}/scp", recurse=True, preserve=True)
        same(f"{WORK}/tree", f"{WORK}/scp")


def same(one, other):
    both = filecmp.dircmp(one, other)
    assert not (both.left_only or both.right_only or both.funny_files), (both.left_only, both.right_only)
    for name in both.common_files:
        assert filecmp.cmp(f"{one}/{name}", f"{other}/{name}", shallow=False), name
        assert int(os.stat(f"{one}/{name}").st_mtime) == int(os.stat(f"{other}/{name}").st_mtime), name
    for name in both.common_dirs:
        same(f"{one}/{name}", f"{other}/{name}")


async def refused():
    async with connect() as gate:
        done = await gate.run("echo never")
        assert (done.exit_status, done.stdout) == (77, ""), done
        assert "was revoked" in done.stderr, done


if __name__ == "__main__":
    part = {"commands": commands, "files": files, "refused": refused}[sys.argv[1]]
    asyncio.run(asyncio.wait_for(part(), 100))
