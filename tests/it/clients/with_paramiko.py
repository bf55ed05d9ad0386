"""Paramiko through the gate: `with_paramiko.py commands|files|refused`. Who and where is in the environment."""

import hashlib
import os
import socket
import stat
import sys
import threading

import paramiko

WORK = os.environ["WORK"]


def connect():
    client = paramiko.SSHClient()
    client.load_host_keys(os.environ["KNOWN_HOSTS"])
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    client.connect(
        os.environ["GATE"],
        port=int(os.environ["PORT"]),
        username=os.environ["DOOR"],
        key_filename=os.environ["KEY"],
        allow_agent=False,
        look_for_keys=False,
        timeout=30,
        banner_timeout=30,
        auth_timeout=30,
        channel_timeout=60,
    )
    return client


def run(client, command, stdin=b"", **more):
    to, out, err = client.exec_command(command, timeout=60, **more)
    writer = threading.Thread(target=lambda: (to.write(stdin), to.flush(), to.channel.shutdown_write()))
    writer.start()
    said = out.read(), err.read()
    writer.join()
    return (out.channel.recv_exit_status(), *said)


def commands():
    client = connect()
    assert run(client, "id -un; echo apart >&2; exit 42") == (42, b"deploy\n", b"apart\n")
    assert run(client, "printf %s \"$LC_TIDE\"", environment={"LC_TIDE": "high"})[1] == b"high"

    sent = os.urandom(4 << 20)
    status, echo, _ = run(client, "cat", sent)
    assert status == 0 and hashlib.sha256(echo).digest() == hashlib.sha256(sent).digest()

    # A terminal of our size, that follows.
    shell = client.invoke_shell(term="xterm", width=97, height=41)
    shell.settimeout(60)
    shell.send(b"stty size; echo term=$TERM; stty -echo; echo quiet\n")
    until(shell, b"\r\nquiet\r\n", b"41 97", b"term=xterm")
    shell.resize_pty(width=60, height=20)
    shell.send(b"stty size; exit 5\n")
    until(shell, b"20 60")
    assert shell.recv_exit_status() == 5

    # Many channels of one connection, side by side.
    results = {}
    work = [threading.Thread(target=lambda n=n: results.update({n: run(client, f"echo {n}; exit {n}")})) for n in range(16)]
    [each.start() for each in work]
    [each.join() for each in work]
    assert results == {n: (n, f"{n}\n".encode(), b"") for n in range(16)}, results

    # New keys after each MiB. Only upwards: with data of the other side on its way, Paramiko's exchange fails before a
    # plain sshd too, now and then.
    client.get_transport().packetizer.REKEY_BYTES = 1 << 20
    sent = os.urandom(12 << 20)
    assert run(client, "sha256sum", sent)[1].split()[0].decode() == hashlib.sha256(sent).hexdigest()
    client.close()


def until(shell, *texts):
    said = b""
    while not all(text in said for text in texts):
        more = shell.recv(4096)
        assert more, said
        said += more


def files():
    client = connect()
    sftp = client.open_sftp()
    content = os.urandom(5 << 20)
    digest = hashlib.sha256(content).hexdigest()
    with open(f"{WORK}/up", "wb") as file:
        file.write(content)
    assert sftp.put(f"{WORK}/up", "from paramiko.bin").st_size == len(content)
    assert run(client, "sha256sum <'from paramiko.bin'")[1].split()[0].decode() == digest
    sftp.get("from paramiko.bin", f"{WORK}/down")
    with open(f"{WORK}/down", "rb") as file:
        assert hashlib.sha256(file.read()).hexdigest() == digest

    sftp.mkdir("tree")
    sftp.posix_rename("from paramiko.bin", "tree/größe")
    sftp.chmod("tree/größe", 0o640)
    sftp.utime("tree/größe", (1_000_000_000, 1_000_000_000))
    sftp.symlink("größe", "tree/link")
    assert sftp.readlink("tree/link") == "größe"
    assert sorted(sftp.listdir("tree")) == ["größe", "link"]
    seen = sftp.stat("tree/link")
    assert (seen.st_size, stat.S_IMODE(seen.st_mode), int(seen.st_mtime)) == (5 << 20, 0o640, 1_000_000_000)
    with sftp.open("tree/größe", "r+") as file:
        file.seek(1000)
        file.write(b"in the middle")
        file.truncate(2000)
    with sftp.open("tree/größe", "rb") as file:
        assert file.read() == content[:1000] + b"in the middle" + content[1013:2000]
    try:
        sftp.stat("nowhere")
        raise AssertionError("a file that is not there was found")
    except FileNotFoundError:
        pass
    for name in sftp.listdir("tree"):
        sftp.remove(f"tree/{name}")
    sftp.rmdir("tree")
    client.close()


def refused():
    client = connect()
    status, out, err = run(client, "echo never")
    assert (status, out) == (77, b""), (status, out)
    assert b"was revoked" in err, err
    client.close()


if __name__ == "__main__":
    socket.setdefaulttimeout(60)
    {"commands": commands, "files": files, "refused": refused}[sys.argv[1]]()
