"""libssh (by ansible-pylibssh) through the gate: `with_libssh.py commands|files|refused`. Who and where is in the
environment."""

import os
import sys
import time

from pylibsshext.session import Session

WORK = os.environ["WORK"]


def connect():
    session = Session()
    session.set_ssh_options("knownhosts", os.environ["KNOWN_HOSTS"])
    with open(os.environ["KEY"], "rb") as key:
        key = key.read()
    session.connect(
        host=os.environ["GATE"],
        port=int(os.environ["PORT"]),
        user=os.environ["DOOR"],
        private_key=key,
        host_key_checking=True,
        look_for_keys=False,
        timeout=30,
    )
    return session


def run(session, command):
    channel = session.new_channel()
    done = channel.exec_command(command)
    channel.close()
    return done.returncode, done.stdout, done.stderr


def commands():
    session = connect()
    assert run(session, "id -un; echo apart >&2; exit 42") == (42, b"deploy\n", b"apart\n")
    for n in range(1, 6):  # channel after channel on one connection
        assert run(session, f"head -c {n}00000 /dev/zero | wc -c; exit {n}") == (n, f"{n}00000\n".encode(), b"")
    channel = session.new_channel()
    channel.request_pty_size(b"xterm", 97, 41)
    channel.sendall(b"stty size; echo term=$TERM\n")  # that asked for a shell, too
    said, end = b"", time.monotonic() + 60
    while b"term=xterm\r\n" not in said:
        assert time.monotonic() < end, said
        channel.poll(timeout=1000)
        said += channel.recv(4096) or b""
    assert b"41 97\r\n" in said, said
    channel.close()
    session.close()


def files():
    session = connect()
    for way in ("sftp", "scp"):
        content = os.urandom(2 << 20)
        with open(f"{WORK}/up", "wb") as file:
            file.write(content)
        carrier = getattr(session, way)()
        carrier.put(f"{WORK}/up", f"from libssh by {way}" if way == "sftp" else "from-libssh")
        carrier.get(f"from libssh by {way}" if way == "sftp" else "from-libssh", f"{WORK}/down")
        with open(f"{WORK}/down", "rb") as file:
            assert file.read() == content, way
    session.close()


def refused():
    session = connect()
    channel = session.new_channel()
    time.sleep(1)  # the refusal must not wait for this one, where nothing is asked for: what runs has a channel of its own
    done = channel.exec_command("echo never")
    channel.close()
    status, out, err = done.returncode, done.stdout, done.stderr
    assert (status, out) == (77, b""), (status, out)
    assert b"was revoked" in err, err
    session.close()


if __name__ == "__main__":
    {"commands": commands, "files": files, "refused": refused}[sys.argv[1]]()
