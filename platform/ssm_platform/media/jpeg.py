"""The structure of a JPEG: where its picture ends, whether its middle is whole, how it is turned.

Phones store more behind a picture (a film, a second picture, a depth map), so the last marker of the file says nothing:
the markers are walked from the first one on. Knows no pixels.
"""

from __future__ import annotations

import re

_START, _END, _SCAN = 0xD8, 0xD9, 0xDA
_BARE = frozenset({0x01, _START, *range(0xD0, 0xD8)})  # markers without a length
_PLAIN_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive
_KNOWN = frozenset({0xC4, 0xDB, _SCAN, 0xDC, 0xDD, 0xFE, *range(0xE0, 0xF0), *_PLAIN_FRAMES})
_IN_SCAN = re.compile(rb"\xff+[^\x00\xff\xd0-\xd7]", re.DOTALL)


def picture_end(data: bytes) -> int | None:
    """Offset just behind the first picture's own end marker; None where it has none: the file was cut."""
    walked = _walk(data)
    if walked is not None:
        return walked
    scan = data.find(bytes((0xFF, _SCAN)))  # damage may lead the walk past the end
    end = data.find(bytes((0xFF, _END)), scan) if scan >= 0 else -1
    return end + 2 if end >= 0 else None


def _walk(data: bytes) -> int | None:
    at = 2
    while at + 1 < len(data):
        if data[at] != 0xFF:
            at = _next_marker(data, at)
            continue
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
        elif marker == _END:
            return at + 2
        elif marker in _BARE or marker == 0:
            at += 2
        elif marker in _KNOWN or 0xC0 <= marker <= 0xCF:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
            at = _next_marker(data, at) if marker == _SCAN else at
        else:
            at = _next_marker(data, at + 2)  # no marker of JPEG: damage
    return None


def is_damaged(data: bytes) -> bool:
    """Whether FFmpeg's strict decoder finds the coded picture broken; False where it does not know this kind of JPEG.

    libjpeg, which decodes for us, fills such places with grey and says so nowhere that a program could read it.
    """
    import av
    from av.error import FFmpegError, PatchWelcomeError

    if not any(data.find(bytes((0xFF, frame)), 0, 1 << 18) >= 0 for frame in _PLAIN_FRAMES):
        return False
    decoder = av.CodecContext.create("mjpeg", "r")
    decoder.options = {"err_detect": "explode"}
    try:
        decoder.decode(av.Packet(data))
    except PatchWelcomeError:
        return False
    except FFmpegError:
        return True
    return False


def _next_marker(data: bytes, at: int) -> int:
    """Where coded data that begins at `at` ends."""
    found = _IN_SCAN.search(data, at)
    return found.end() - 2 if found else len(data)
