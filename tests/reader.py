#!/usr/bin/env python3
"""Verifies and prints a tidegate recording. Written from recorder/FORMAT.md alone; it shares no code with tidegate.

reader.py FILE --key ledger.pub [--identity auditor.key]     exit 0 complete, 1 truncated, 2 bad
Without an identity it only verifies. Needs cryptography, pyrage and zstandard from PyPI.
"""
import argparse, base64, hashlib, io, json, struct, sys
import pyrage, zstandard
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import load_pem_public_key

MIB = 1 << 20
STREAMS = ["stdin", "stdout", "stderr", "copy-in", "copy-out", "from-client", "from-target"]
DOMAIN = {3: b"tidegate recording checkpoint v1\0", 4: b"tidegate recording end v1\0"}


class Bad(Exception): pass


def preamble(file):
    fixed = file.read(14)
    if len(fixed) < 14 or fixed[:8] != b"tgrec\r\n\x1a":
        raise Bad("not a recording")
    version, length = struct.unpack(">HI", fixed[8:])
    if version not in (1, 2) or length > MIB:
        raise Bad("a version or a length that I do not know")
    if len(text := file.read(length)) < length:
        raise Bad("the file ends inside the preamble")
    return version, json.loads(text), hashlib.sha256(fixed + text).digest()


def frames(file):
    """Each frame's head, payload and hash; None where the file ends inside one."""
    while head := file.read(29):
        if len(head) < 29:
            yield None
            return
        length, kind = struct.unpack(">IB", head[:5])
        if not 57 <= length <= 57 + MIB or kind not in (1, 2, 3, 4):
            raise Bad("no frame")
        rest = file.read(length - 25)
        if len(rest) < length - 25:
            yield None
            return
        yield head, rest[:-32], rest[-32:]


class Records:
    """Opens the sealed payloads of one key."""

    def __init__(self, wrapped, identities, packed):
        key = pyrage.decrypt(base64.b64decode(wrapped), identities)
        self.cipher, self.parts = ChaCha20Poly1305(key), b""
        self.zstd = zstandard.ZstdDecompressor(max_window_size=128 * 1024).decompressobj() if packed else None

    def open(self, first, head, payload):
        plain = self.cipher.decrypt(bytes(4) + head[5:13], payload, first + head)
        if self.zstd:
            plain = self.zstd.decompress(plain)
        source = io.BytesIO(plain)
        while prefix := source.read(5):
            tag, length = struct.unpack(">BI", prefix)
            body = source.read(length)
            if len(body) < length:
                raise Bad("a record is longer than its frame")
            yield from self.record(tag, body)

    def record(self, tag, body):
        if tag == 2:
            self.parts += body
        elif tag == 1:
            text, self.parts = self.parts + body, b""
            yield json.loads(text)
        elif tag in (3, 4, 5):
            channel, stream = struct.unpack(">IB", body[:5])
            place = {"channel": channel, "stream": STREAMS[stream]}
            if tag == 3:
                yield place | {"event": "data", "text": body[6:].decode(errors="replace")}
            else:
                one, two = struct.unpack(">QQ", body[-48:-32])
                names = ("bytes", "total") if tag == 4 else ("total", "kept")
                event = {"event": "counted" if tag == 4 else "total", names[0]: one, names[1]: two}
                yield place | event | {"sha256": body[-32:].hex()}
        else:
            raise Bad("an unknown record")


def signed(key, kind, session, before, head, payload):
    figures, signature = payload[:-64], payload[-64:]
    if len(figures) != (0 if kind == 3 else 32) or kind == 4 and figures[:8] != head[5:13]:
        return False
    name = session.encode()
    try:
        key.verify(signature, DOMAIN[kind] + struct.pack(">H", len(name)) + name + before + head + figures)
        return True
    except InvalidSignature:
        return False


def read(file, key, identities, show):
    """The state, how many frames are good, the last proven one, the exit code."""
    version, header, first = preamble(file)
    keys = {}
    if identities:
        keys = {1: Records(header["main_key"], identities, version == 2), 2: Records(header["keystroke_key"], identities, False)}
    show({name: header[name] for name in ("session", "identity", "target", "access", "start")})
    count, proven, before, ended = 0, 0, first, False
    try:
        for frame in frames(file):
            if ended:
                raise Bad("something comes after the end")
            if frame is None:
                break
            head, payload, digest = frame
            kind, (seq, elapsed) = head[4], struct.unpack(">QQ", head[5:21])
            if seq != count + 1 or hashlib.sha256(before + head + payload).digest() != digest:
                raise Bad("it does not follow from the frame before")
            if count == 0 and kind != 3:
                raise Bad("the first frame is no checkpoint")
            if kind in DOMAIN:
                if not signed(key, kind, header["session"], before, head, payload):
                    raise Bad("its signature does not hold")
                proven, ended = seq, kind == 4
            elif kind in keys:
                for event in keys[kind].open(first, head, payload):
                    show({"frame": seq, "elapsed": elapsed / 1e9} | event)
            count, before = seq, digest
    except Bad as fault:
        return f"BAD frame {count + 1}: {fault}", count, proven, 2
    return ("complete", count, proven, 0) if ended else (f"TRUNCATED after frame {count}", count, proven, 1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("file"), parser.add_argument("--key", required=True), parser.add_argument("--identity")
    args = parser.parse_args()
    key, identities = load_pem_public_key(open(args.key, "rb").read()), []
    if args.identity:
        text = open(args.identity).read()
        lines = [line for line in text.splitlines() if line.startswith("AGE-SECRET-KEY-")]
        identities = [pyrage.x25519.Identity.from_str(line) for line in lines] or [pyrage.ssh.Identity.from_buffer(text.encode())]
    with open(args.file, "rb") as file:
        state, count, proven, code = read(file, key, identities, lambda line: print(json.dumps(line)))
    print(json.dumps({"state": state, "frames": count, "proven": proven}))
    sys.exit(code)


if __name__ == "__main__":
    main()
