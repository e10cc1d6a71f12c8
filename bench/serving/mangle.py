"""Mangled uploads, as a pure function of a seed: what a hostile or broken client might send to `/v1/predict`.

`mangled(seed, originals, specimens)` gives one request (headers and body). `specimens` are hostile files as a
whole, made by FFmpeg's command (`hostile`). Other kinds: cut short, flipped bits, overwritten stretches,
wrong type, nothing, random bytes, pixel bombs (small files whose header promises a huge picture), huge part headers,
broken multipart, lying content types and lengths, playlists that name other files.
"""

from __future__ import annotations

import struct
import subprocess
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

Generator = np.random.Generator

_TEXTS = (
    b"%PDF-1.7\n",
    b"PK\3\4" + b"\0" * 60,
    b"<svg xmlns='x'/>",
    b"RIFF\0\0\0\0WAVEfmt ",
    b"\x7fELF" + b"\0" * 99,
    b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    b"ffconcat version 1.0\nfile /etc/passwd\n",
    b"v=0\no=- 0 0 IN IP4 127.0.0.1\nm=video 5000 RTP/AVP 96\n",
    b"{}",
    b"1\n00:00:01,000 --> 00:00:02,000\nx\n",
)


@dataclass(frozen=True)
class Mangled:
    """One request."""

    kind: str
    headers: dict[str, bytes]
    body: bytes


def hostile(folder: Path) -> dict[str, bytes]:
    """Files that are dear to read, or that lie: small to send, well-formed to look at."""

    def ffmpeg(name: str, words: str) -> bytes:
        command = ["ffmpeg", "-v", "error", "-y", *words.split(), str(folder / name)]
        subprocess.run(command, check=True, timeout=100)
        return (folder / name).read_bytes()

    lie = bytearray(ffmpeg("lie.avi", "-f lavfi -i color=red:s=12000x12000 -frames:v 1 -c:v mjpeg -pix_fmt yuvj420p"))
    struct.pack_into("<II", lie, lie.find(b"avih") + 8 + 32, 320, 240)
    struct.pack_into("<HHHH", lie, lie.find(b"strh") + 8 + 48, 0, 0, 320, 240)
    struct.pack_into("<II", lie, lie.find(b"strf") + 8 + 4, 320, 240)
    ffmpeg("short.webm", "-f lavfi -i testsrc=s=640x480:d=1:r=30 -c:v libvpx -deadline realtime -cpu-used 16")
    sizes = [
        ffmpeg(f"{side}.ts", f"-f lavfi -i testsrc=s={side}x{side}:d=2 -c:v libx264 -bf 0") and f"{folder}/{side}.ts"
        for side in (96, 64)
    ]
    fast = "-f lavfi -i color=gray:s=32x32:d=30:r=1000 -c:v libx264 -preset ultrafast"
    return {
        "1 x 2000": ffmpeg("wide.png", "-f lavfi -i testsrc=s=2000x16 -vf format=rgb24,crop=2000:1 -frames:v 1"),
        "2000 x 1": ffmpeg("tall.png", "-f lavfi -i testsrc=s=16x2000 -vf format=rgb24,crop=1:2000 -frames:v 1"),
        "header lies": bytes(lie),
        "counted for minutes": ffmpeg("long.webm", f"-stream_loop 250 -i {folder}/short.webm -c copy"),
        "1000 frames a second": ffmpeg("fast.mp4", fast),
        "sizes change": ffmpeg("joined.ts", f"-i concat:{sizes[0]}|{sizes[1]} -c copy"),
        "just small enough": ffmpeg(
            "large.mp4", "-f lavfi -i testsrc=s=3200x2400:d=0.4 -c:v libx264 -preset ultrafast"
        ),
    }


def mangled(seed: int, originals: Sequence[bytes], specimens: Sequence[bytes] = ()) -> Mangled:
    """Request number `seed`, made from whole files; every 40th is a specimen, where there are any."""
    if specimens and seed % 40 == 0:
        return form("hostile", specimens[seed // 40 % len(specimens)])
    generator = np.random.default_rng(seed)
    kind = list(_KINDS)[seed % len(_KINDS)]
    original = originals[int(generator.integers(len(originals)))]
    return _KINDS[kind](kind, generator, original)


def form(kind: str, content: bytes, name: str = "x.mp4", declared: str = "video/mp4", extra: bytes = b"") -> Mangled:
    """A well-formed form around a file."""
    head = f'--b\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'.encode()
    body = head + extra + f"Content-Type: {declared}\r\n\r\n".encode() + content + b"\r\n--b--\r\n"
    return Mangled(kind, {"Content-Type": b"multipart/form-data; boundary=b"}, body)


def _truncated(kind: str, generator: Generator, original: bytes) -> Mangled:
    return form(kind, original[: int(generator.integers(1, len(original)))])


def _flipped(kind: str, generator: Generator, original: bytes) -> Mangled:
    data = np.frombuffer(original, np.uint8).copy()
    most = len(data) if generator.random() < 0.5 else min(len(data), 2000)  # half of them in the header
    at = generator.integers(0, most, int(generator.integers(1, 40)))
    data[at] ^= (1 << generator.integers(0, 8, len(at))).astype(np.uint8)
    return form(kind, data.tobytes())


def _overwritten(kind: str, generator: Generator, original: bytes) -> Mangled:
    start = int(generator.integers(0, len(original)))
    patch = generator.bytes(int(generator.integers(1, 400)))
    return form(kind, original[:start] + patch + original[start + len(patch) :])


def _shuffled(kind: str, generator: Generator, original: bytes) -> Mangled:
    pieces = [original[at : at + 997] for at in range(0, len(original), 997)]
    return form(kind, b"".join(pieces[int(i)] for i in generator.permutation(len(pieces))))


def _random(kind: str, generator: Generator, original: bytes) -> Mangled:
    start = original[: int(generator.choice([0, 4, 12, 64]))]
    return form(kind, start + generator.bytes(int(generator.integers(0, 5000))))


def _empty(kind: str, generator: Generator, original: bytes) -> Mangled:
    return form(kind, b"") if generator.random() < 0.5 else Mangled(kind, form("", b"").headers, b"")


def _wrong_type(kind: str, generator: Generator, original: bytes) -> Mangled:
    text = _TEXTS[int(generator.integers(len(_TEXTS)))]
    names = ("../../etc/passwd", "x.m3u8", "a\0b", "x" * 5000, "C:\\x.mp4", "<script>", "\u202e4pm.x")
    return form(kind, text, names[int(generator.integers(len(names)))])


def _bomb(kind: str, generator: Generator, original: bytes) -> Mangled:
    side = int(generator.choice([20_000, 60_000, 2**31 - 1]))
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(b"\0" * 10_000_000))
    gif = b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0)
    bmp = b"BM" + struct.pack("<IHHIIiiHHIIiiII", 100, 0, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0)
    frame = b"\xff\xd8\xff\xc0\0\x11\x08" + struct.pack(">HH", 65_000, 65_000) + b"\3\1\x11\0\2\x11\1\3\x11\1\xff\xd9"
    kinds = (png + _chunk(b"IEND", b""), gif + b"\2\2L\1\0;", bmp, frame)
    return form(kind, kinds[int(generator.integers(len(kinds)))], "x.png", "image/png")


def _headers(kind: str, generator: Generator, original: bytes) -> Mangled:
    size = int(generator.choice([5_000, 100_000, 1_000_000]))
    extra = b"X-Long: " + b"a" * size + b"\r\n" if generator.random() < 0.5 else b"X: y\r\n" * (size // 6)
    return form(kind, original[:1000], extra=extra)


def _multipart(kind: str, generator: Generator, original: bytes) -> Mangled:
    whole = form(kind, original[:5000])
    data = bytearray(whole.body)
    for at in generator.integers(0, 140, int(generator.integers(1, 6))):
        data[int(at)] = int(generator.integers(0, 256))
    return Mangled(kind, whole.headers, bytes(data[: int(generator.integers(1, len(data) + 1))]))


def _lies(kind: str, generator: Generator, original: bytes) -> Mangled:
    types = ("image/png", "text/html", "application/json", "multipart/mixed; boundary=b", "multipart/form-data",
             "multipart/form-data; boundary=" + "b" * 300, "multipart/form-data; boundary=\"", "", "\xff")  # fmt: skip
    chosen = types[int(generator.integers(len(types)))]
    whole = form(kind, original[:3000], declared="image/svg+xml")
    return Mangled(kind, {"Content-Type": chosen.encode("latin-1")}, whole.body)


def _many(kind: str, generator: Generator, original: bytes) -> Mangled:
    one = form(kind, b"x").body.removesuffix(b"--b--\r\n")
    return Mangled(kind, form(kind, b"").headers, one * int(generator.integers(50, 3000)) + b"--b--\r\n")


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


_KINDS: dict[str, Callable[[str, Generator, bytes], Mangled]] = {
    "truncated": _truncated,
    "flipped": _flipped,
    "overwritten": _overwritten,
    "shuffled": _shuffled,
    "random": _random,
    "empty": _empty,
    "wrong type": _wrong_type,
    "pixel bomb": _bomb,
    "huge headers": _headers,
    "multipart": _multipart,
    "lying types": _lies,
    "many parts": _many,
}
