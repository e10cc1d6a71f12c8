"""What a file is, told from its first bytes and never from its name: a picture, or else in words what was handed in.

Containers of video are not told apart here: FFmpeg does that.
"""

from __future__ import annotations

from typing import Literal

PictureFormat = Literal["JPEG", "PNG", "BMP", "TIFF", "WEBP", "HEIF", "AVIF"]

HEAD = 512
"""Bytes of a file's beginning that are looked at."""

_PICTURES: dict[bytes, PictureFormat] = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
}
_HEIF_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"mif1", b"mif2"})
_SOUND = "sound, and no video"
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the file itself (run `git lfs pull`)"),
    (b"/annex/objects/", "a git-annex pointer, not the file itself (run `git annex get`)"),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 picture, which is not read; make it JPEG or PNG"),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 picture, which is not read; make it JPEG or PNG"),
    (b"\0\0\0\x0cJXL ", "a JPEG XL picture, which is not read; make it JPEG or PNG"),
    (b"\xff\x0a", "a JPEG XL picture, which is not read; make it JPEG or PNG"),
    (b"\0\x05\x16\x07", "a companion file of macOS (AppleDouble), not the file itself"),
    (b"ID3", _SOUND),
    (b"fLaC", _SOUND),
    (b"\xff\xfb", _SOUND),
    (b"8BPS", "a Photoshop document; make it JPEG or PNG"),
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive; unpack it first"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7-Zip archive; unpack it first"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array"),
)
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<body")


def picture_format(head: bytes) -> PictureFormat | None:
    """The format of a picture by its first bytes; None for anything else."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp":
        return _heif(head)
    return next((name for magic, name in _PICTURES.items() if head.startswith(magic)), None)


def in_words(head: bytes) -> str | None:
    """What a file that is neither picture nor video is, with the mend where there is one; None where nobody knows."""
    told = next((words for magic, words in _OTHERS if head.startswith(magic)), None)
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return _SOUND
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if told is not None:
        return told
    if start.startswith(_PAGES):
        return "a web page, not the file itself (its link may need a login)"
    if start.startswith((b"<?xml", b"<svg")):
        return "an XML document"
    return "plain text" if head and _is_text(head) else None


def _heif(head: bytes) -> PictureFormat | None:
    """A still picture in the container of MP4: by its major brand, else by a still brand before any of video."""
    size = min(int.from_bytes(head[:4], "big"), len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, size, 4))]
    if brands[0] == b"avif" or (brands[0] in _HEIF_BRANDS and b"avif" in brands):
        return "AVIF"
    return "HEIF" if brands[0] in _HEIF_BRANDS else None


def _is_text(head: bytes) -> bool:
    try:
        text = head[: len(head) - 3].decode() if len(head) == HEAD else head.decode()
    except UnicodeDecodeError:
        return False
    return all(letter.isprintable() or letter in "\r\n\t" for letter in text)
