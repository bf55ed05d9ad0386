#!/usr/bin/env python3
"""Verifies and prints a tidegate recording. Written from recorder/FORMAT.md alone; it shares no code with tidegate.

reader.py FILE --key ledger.pub [--identity auditor.key]     exit 0 complete, 1 truncated, 2 bad
Without an identity it only verifies. Needs cryptography, pyrage and zstandard of PyPI.
"""
import argparse, base64, hashlib, io, json, struct, sys, pyrage, zstandard
from cryptography.exceptions import InvalidSignature, InvalidTag
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
    if version not in (1, 2, 3, 4) or length > MIB or len(text := file.read(length)) < length:
        raise Bad("a version or a length that I do not know, or the file ends here")
    return version, json.loads(text), hashlib.sha256(fixed + text).digest()


def frames(file, version):
    """Each frame's head, payload and hash, or the beginning of that; None where the file ends inside one."""
    elapsed = wall = seq = 0
    while head := file.read(2):
        short = version > 2 and head[0] > 127
        head += file.read(6 if short else 27)
        if len(head) < (8 if short else 29):
            break
        if short:
            word, apart, drift = struct.unpack(">HIh", head)
            elapsed, wall, seq = elapsed + 1000 * apart, wall + 1000 * (apart + drift), seq + 1
            length, kind = 57 + (word & 0x3FFF), 1 + (word >> 14 & 1)
        else:
            length, kind, seq, elapsed, wall = struct.unpack(">IBQQq", head)
        if not 57 <= length <= 57 + MIB or kind not in (1, 2, 3, 4) or elapsed >> 64 or not -(1 << 63) <= wall < 1 << 63:
            raise Bad("no frame")
        payload, size = file.read(length - 57), 4 if short else 32
        if len(digest := file.read(size)) < size:
            break
        yield struct.pack(">IBQQq", length, kind, seq, elapsed, wall), payload, digest
    if head:
        yield None


class Records:
    """Opens the sealed payloads of one key."""

    def __init__(self, wrapped, identities, packed):
        key = pyrage.decrypt(base64.b64decode(wrapped), identities)
        self.cipher, self.parts, self.packed = ChaCha20Poly1305(key), b"", packed

    def open(self, first, head, payload):
        plain = self.cipher.decrypt(bytes(4) + head[5:13], payload, first + head)
        if self.packed and plain[:4] == b"\x28\xb5\x2f\xfd":
            self.zstd = zstandard.ZstdDecompressor(max_window_size=128 * 1024).decompressobj()
        source = io.BytesIO(self.zstd.decompress(plain) if self.packed else plain)
        while prefix := source.read(5):
            tag, length = struct.unpack(">BI", prefix)
            if len(body := source.read(length)) < length:
                raise Bad("a record is longer than its frame")
            yield from self.record(tag, body)

    def record(self, tag, body):
        if tag == 2:
            self.parts += body
        elif tag == 1:
            yield json.loads(self.parts + body)
            self.parts = b""
        elif tag in (3, 4, 5):
            channel, stream = struct.unpack(">IB", body[:5])
            place = {"channel": channel, "stream": STREAMS[stream]}
            if tag == 3:
                yield place | {"event": "data", "text": body[6:].decode(errors="replace")}
                return
            name, *names = ("counted", "bytes", "total") if tag == 4 else ("total", "total", "kept")
            figures = dict(zip(names, struct.unpack(">QQ", body[-48:-32])))
            yield place | {"event": name} | figures | {"sha256": body[-32:].hex()}
        else:
            raise Bad("an unknown record")


def signed(key, kind, session, before, head, payload):
    figures, signature = payload[:-64], payload[-64:]
    if len(figures) != (0 if kind == 3 else 32) or kind == 4 and figures[:8] != head[5:13]:
        return False
    try:
        return key.verify(signature, DOMAIN[kind] + struct.pack(">H", len(session)) + session + before + head + figures) is None
    except InvalidSignature:
        return False


def read(file, key, identities, show):
    """The state, how many frames are good, the last proven one, the exit code."""
    count, proven, ended = 0, 0, False
    try:
        version, header, before = preamble(file)
        first, wrapped = before, {1: (header["main_key"], identities, version > 1), 2: (header["keystroke_key"], identities, False)}
        keys = {kind: Records(*how) for kind, how in wrapped.items() if identities}
        show({name: header[name] for name in ("session", "identity", "target", "access", "start")})
        for frame in frames(file, version):
            if ended:
                raise Bad("something comes after the end")
            if frame is None:
                break
            head, payload, digest = frame
            kind, (seq, elapsed) = head[4], struct.unpack(">QQ", head[5:21])
            whole = hashlib.sha256(before + head + payload).digest()
            if seq != count + 1 or whole[: len(digest)] != digest:
                raise Bad("it does not follow from the frame before")
            if count == 0 and kind != 3:
                raise Bad("the first frame is no checkpoint")
            if kind in DOMAIN and not signed(key, kind, header["session"].encode(), before, head, payload):
                raise Bad("its signature does not hold")
            if kind in DOMAIN:
                proven, ended = seq, kind == 4
            elif kind in keys:
                for event in keys[kind].open(first, head, payload):
                    show({"frame": seq, "elapsed": elapsed / 1e9} | event)
            count, before = seq, whole
    except (Bad, InvalidTag, zstandard.ZstdError, struct.error, ValueError) as fault:
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
    state, count, proven, code = read(open(args.file, "rb"), key, identities, lambda line: print(json.dumps(line)))
    print(json.dumps({"state": state, "frames": count, "proven": proven}))
    sys.exit(code)


main()
