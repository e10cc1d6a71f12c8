"""Files that people hand in, none written by our code: FFmpeg's encoders, Pillow, pillow-heif, boxes by hand."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from ssm_platform.media.errors import UnreadableVideo
from ssm_platform.media.handed_in import InputLimits, TooLarge, open_input
from ssm_platform.media.images import decode_image, read_image
from ssm_platform.media.jpeg import picture_end
from ssm_platform.media.video import InputInfo, Pictures, Video, open_video

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the ffmpeg command")

ANY = InputLimits()


def ffmpeg(*words: object) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, words)], check=True, timeout=120)


def pattern(path: Path, *words: object, size: str = "320x240", seconds: float = 1) -> Path:
    """FFmpeg's test pattern through an encoder of its own."""
    ffmpeg("-f", "lavfi", "-i", f"testsrc=size={size}:rate=25:duration={seconds}", *words, path)
    return path


def opened(path: Path, limits: InputLimits = ANY) -> Video | Pictures:
    return open_input([path], "av", limits)


def facts(path: Path) -> InputInfo:
    return opened(path).facts


def photograph(width: int = 96, height: int = 64) -> Image.Image:
    """Red to the left, green to the right, blue below: no two corners alike."""
    image = np.zeros((height, width, 3), np.uint8)
    image[:, : width // 2, 0] = image[:, width // 2 :, 1] = 220
    image[height // 2 :, :, 2] = 200
    return Image.fromarray(image)


def near(found: NDArray[np.uint8], wanted: Image.Image, most: float = 12) -> bool:
    pixels = np.asarray(wanted.convert("RGB"), int)
    return found.shape == pixels.shape and float(np.abs(found.astype(int) - pixels).mean()) < most


def heic(path: Path, image: Image.Image, tile: int = 0) -> Path:
    pillow_heif = pytest.importorskip("pillow_heif")
    pillow_heif.options.GRID_TILE_SIZE = tile
    try:
        pillow_heif.from_pillow(image).save(path, quality=90)
    finally:
        pillow_heif.options.GRID_TILE_SIZE = 0
    return path


@pytest.mark.parametrize("ending", ["heic", "jpg", "mp4"])
@pytest.mark.parametrize("tile", [0, 256])
def test_heic_is_the_whole_picture_whatever_its_tiles(tmp_path: Path, tile: int, ending: str) -> None:
    image = photograph(512, 384)
    path = heic(tmp_path / f"photo.{ending}", image, tile)
    assert (b"grid" in path.read_bytes()) == bool(tile)
    source = opened(path)
    assert (source.facts.kind, source.facts.width, source.facts.height) == ("pictures", 512, 384)
    (frame,) = source.frames()
    assert near(frame.image, image)
    with pytest.raises(UnreadableVideo, match="it is a HEIF picture, not a video"):
        open_video(path)
    with pytest.raises(TooLarge, match="512 x 384 pixels"):
        opened(path, InputLimits(pixels=1000))


def with_irot(data: bytes, quarters: int) -> bytes:
    """Turn by `quarters` of a circle, counter-clockwise, written over the property box that libheif has for it."""
    at = data.find(b"irot")
    assert at > 0
    return data[: at + 4] + bytes([quarters]) + data[at + 5 :]


def test_heic_is_turned_upright(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    image = photograph(128, 64)
    turned = pillow_heif.from_pillow(image)
    exif = Image.Exif()
    exif[0x0112] = 6  # libheif's writer makes `irot` of it
    turned.info["exif"] = exif.tobytes()
    turned.save(tmp_path / "photo.heic", quality=90)
    assert (facts(tmp_path / "photo.heic").width, facts(tmp_path / "photo.heic").height) == (64, 128)
    assert near(read_image(tmp_path / "photo.heic"), image.rotate(-90, expand=True))
    data = (tmp_path / "photo.heic").read_bytes()
    if b"irot" in data:
        assert near(decode_image(with_irot(data, 1), "x"), image.rotate(90, expand=True))


def test_heic_without_its_decoder_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = heic(tmp_path / "photo.heic", photograph())
    monkeypatch.setitem(__import__("sys").modules, "pillow_heif", None)
    for call in (opened, read_image):
        with pytest.raises(UnreadableVideo, match=r"photo\.heic: it is a HEIC/HEIF picture.*ssm-platform\[heic\]"):
            call(path)


def test_a_cut_heic_is_refused(tmp_path: Path) -> None:
    data = heic(tmp_path / "photo.heic", photograph(512, 384)).read_bytes()
    (tmp_path / "cut.heic").write_bytes(data[: len(data) // 2])
    with pytest.raises(UnreadableVideo, match="HEI"):
        read_image(tmp_path / "cut.heic")


def jpeg(image: Image.Image, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return pattern(tmp_path_factory.mktemp("film") / "f.mp4", "-c:v", "libx264").read_bytes()


def extended(film: bytes) -> dict[str, bytes]:
    """What phones put behind a photograph."""
    return {
        "motion photo": film,
        "another picture": jpeg(photograph(40, 30)) + b"\0" * 9,
        "a film that looks like a scan": film + b"\xff\xda\xff\xc0\xff\xda",
        "padding": b"\0" * 4096,
    }


@pytest.mark.parametrize("behind", ["motion photo", "another picture", "a film that looks like a scan", "padding"])
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 3}])
def test_what_lies_behind_a_jpeg_is_not_looked_at(
    tmp_path: Path, film: bytes, behind: str, options: dict[str, object]
) -> None:
    photo = jpeg(photograph(), **options)
    path = tmp_path / "PXL_2024.MP.jpg"
    path.write_bytes(photo + extended(film)[behind])
    assert near(read_image(path), photograph())
    assert (facts(path).kind, facts(path).width, facts(path).notes) == ("pictures", 96, ())
    assert picture_end(photo) == len(photo)


def textured() -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    return Image.fromarray(cv2.GaussianBlur(noise, (0, 0), 3))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_cut_within_is_refused_and_one_damaged_within_is_noted(
    tmp_path: Path, film: bytes, progressive: bool
) -> None:
    photo = bytearray(jpeg(textured(), progressive=progressive))
    (tmp_path / "cut.jpg").write_bytes(photo[: len(photo) * 2 // 3])
    with pytest.raises(UnreadableVideo, match=r"cut\.jpg: truncated JPEG"):
        read_image(tmp_path / "cut.jpg")
    middle = len(photo) // 2
    photo[middle : middle + 200] = np.random.default_rng(1).integers(0, 255, 200, np.uint8).tobytes()
    (tmp_path / "damaged.jpg").write_bytes(photo + film)
    assert facts(tmp_path / "damaged.jpg").notes == (
        "damaged.jpg: damaged inside: part of the picture is not what was taken",
    )
    assert read_image(tmp_path / "damaged.jpg").shape == (300, 400, 3)


@pytest.mark.parametrize(("tag", "turned"), [(1, 0), (3, 180), (6, -90), (8, 90)])
def test_sizes_of_photographs_are_those_of_the_upright_picture(tmp_path: Path, tag: int, turned: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = tag
    (tmp_path / "photo.jpg").write_bytes(jpeg(photograph(), exif=exif))
    upright = photograph().rotate(turned, expand=True)
    told = facts(tmp_path / "photo.jpg")
    assert (told.width, told.height, told.rotation) == (*upright.size, turned % 360)
    assert near(read_image(tmp_path / "photo.jpg"), upright)


@pytest.mark.parametrize(("shape", "size"), [("2/1", (640, 240)), ("1/2", (320, 480)), ("1/1", (320, 240))])
def test_pixels_are_made_square_as_players_do(tmp_path: Path, shape: str, size: tuple[int, int]) -> None:
    video = open_video(pattern(tmp_path / "v.mp4", "-vf", f"setsar={shape}", "-pix_fmt", "yuv420p"))
    assert (video.facts.width, video.facts.height) == size
    assert next(video.frames()).image.shape == (size[1], size[0], 3)
    assert bool(video.facts.notes) == (shape != "1/1")
    assert open_video(tmp_path / "v.mp4", "decord").decoder == ("av" if shape != "1/1" else "decord")


def test_anamorphic_and_turned_at_once(tmp_path: Path) -> None:
    pattern(tmp_path / "flat.mp4", "-vf", "setsar=2/1", "-pix_fmt", "yuv420p")
    ffmpeg("-i", tmp_path / "flat.mp4", "-c", "copy", "-metadata:s:v", "rotate=90", tmp_path / "v.mp4")
    video = open_video(tmp_path / "v.mp4")
    assert video.facts.rotation in (90, 270)
    assert (video.facts.width, video.facts.height) == (240, 640)
    assert next(video.frames()).image.shape == (640, 240, 3)


@pytest.mark.parametrize("ending", ["mp3", "m4a", "flac"])
def test_sound_with_a_cover_is_no_video(tmp_path: Path, ending: str) -> None:
    photograph().save(tmp_path / "cover.jpg")
    path = tmp_path / f"song.{ending}"
    sound = ("-f", "lavfi", "-i", "sine=d=1", "-i", tmp_path / "cover.jpg", "-map", 0, "-map", 1)
    ffmpeg(*sound, "-c:v", "copy", "-disposition:v", "attached_pic", path)
    for call in (opened, open_video):
        with pytest.raises(UnreadableVideo, match=r"no video|sound"):
            call(path)


def test_a_video_behind_its_cover_is_read(tmp_path: Path) -> None:
    photograph(1280, 960).save(tmp_path / "cover.jpg")
    pattern(tmp_path / "v.mp4", "-c:v", "libx264", "-pix_fmt", "yuv420p")
    both = ("-i", tmp_path / "cover.jpg", "-i", tmp_path / "v.mp4", "-map", 0, "-map", 1, "-c", "copy")
    ffmpeg(*both, "-disposition:v:0", "attached_pic", "-disposition:v:1", "default", tmp_path / "both.mp4")
    video = opened(tmp_path / "both.mp4")
    assert isinstance(video, Video)
    assert (video.facts.frames, video.facts.width) == (25, 320)
    assert len(list(video.frames())) == 25


@pytest.mark.parametrize("codec", ["mpeg2video", "libx264"])
def test_a_broadcast_with_lost_packets_is_read_on(tmp_path: Path, codec: str) -> None:
    data = pattern(tmp_path / "whole.ts", "-c:v", codec, "-g", 10, "-pix_fmt", "yuv420p", seconds=3).read_bytes()
    middle = len(data) // 188 // 2 * 188
    (tmp_path / "lost.ts").write_bytes(data[:middle] + data[middle + 3 * 188 :])
    video = opened(tmp_path / "lost.ts")
    assert isinstance(video, Video)
    assert "lost" in " ".join(video.facts.notes)
    frames = list(video.frames())
    assert 60 <= len(frames) == video.facts.frames <= 75
    again = video.reader().read([len(frames) - 1])
    assert np.array_equal(again[0], frames[-1].image)


def test_two_sizes_in_one_stream_are_said(tmp_path: Path) -> None:
    joined = b"".join(
        pattern(tmp_path / f"{size}.ts", "-c:v", "mpeg2video", size=size).read_bytes()
        for size in ("320x240", "160x120")
    )
    (tmp_path / "joined.ts").write_bytes(joined)
    video = open_video(tmp_path / "joined.ts")
    with pytest.raises(UnreadableVideo, match="160 x 120 after 320 x 240 pixels: two sizes in one stream"):
        list(video.frames())


def test_interlaced_and_hdr_are_noted(tmp_path: Path) -> None:
    pattern(tmp_path / "i.ts", "-c:v", "mpeg2video", "-flags", "+ildct+ilme", "-top", 1)
    assert "interlaced" in " ".join(facts(tmp_path / "i.ts").notes)
    colours = ("-color_primaries", "bt2020", "-color_trc", "smpte2084", "-colorspace", "bt2020nc")
    pattern(tmp_path / "h.mp4", "-c:v", "libx265", "-pix_fmt", "yuv420p10le", *colours, "-x265-params", "log-level=0")
    assert "HDR (PQ)" in " ".join(facts(tmp_path / "h.mp4").notes)


WORDS = {
    "page.jpg": (b"\xef\xbb\xbf\n<!DOCTYPE html><html><body>Sign in</body>", "a web page"),
    "page.mp4": (b"<html><body>404</body></html>", "a web page"),
    "pointer.jpg": (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n", "Git LFS pointer"),
    "pointer.mp4": (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 12\n", "git lfs pull"),
    "twin.mp4": (struct.pack(">II", 0x00051607, 0x20000) + b"Mac OS X" + bytes(100), "companion file of macOS"),
    "archive.mp4": (b"PK\x03\x04" + bytes(60), "ZIP archive"),
    "note.png": ("grüße\n".encode(), "plain text"),
}


@pytest.mark.parametrize("name", WORDS)
def test_what_is_no_picture_and_no_video_is_called_what_it_is(tmp_path: Path, name: str) -> None:
    data, words = WORDS[name]
    (tmp_path / name).write_bytes(data)
    for call in (opened, read_image, open_video):
        with pytest.raises(UnreadableVideo, match=words):
            call(tmp_path / name)


def test_jpeg_2000_is_called_what_it_is(tmp_path: Path) -> None:
    photograph().save(tmp_path / "x.jp2")
    (tmp_path / "x.jp2").rename(tmp_path / "x.jpg")
    for call in (opened, read_image):
        with pytest.raises(UnreadableVideo, match=r"x\.jpg: .*JPEG 2000"):
            call(tmp_path / "x.jpg")
