"""Frames by number: every decoder returns exactly the frames asked for, from every kind of file a user may have."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from stamp import read_stamp, stamp

from ssm_platform.media.decoders import DECODERS
from ssm_platform.media.frames import open_frames
from ssm_platform.media.images import read_image
from ssm_platform.media.video import open_video
from ssm_platform.media.video_index import Access, UnreadableVideo, VideoInfo, index_video
from ssm_platform.records.manifest import Record

WIDTH, HEIGHT, CLIP = 160, 96, 7
ALTERNATE = {"auto-alt-ref": "1", "lag-in-frames": "16"}
OPEN_GROUPS = {"x264-params": "open-gop=1:bframes=3:keyint=20:scenecut=0"}


def probe(path: Path) -> VideoInfo:
    return index_video(path).info


def read_frames(path: Path, indices: Sequence[int], decoder: str = "decord") -> NDArray[np.uint8]:
    """Frames of a whole video, as a manifest's record gives them."""
    record = Record(clip="c", source=path.name, kind="video", start=0, length=probe(path).frames)
    with closing(open_frames(record, path.parent, decoder)) as source:
        return source.read(indices)


def write_video(
    path: Path,
    frames: int,
    codec: str = "libx264",
    b_frames: int = 0,
    times: list[int] | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """A video of stamped frames; `times` are milliseconds, else 25 frames/s."""
    fill(av.open(str(path), "w"), frames, codec, b_frames, times, options)
    return path


def fill(
    container: Any,
    frames: int,
    codec: str,
    b_frames: int = 0,
    times: list[int] | None = None,
    options: dict[str, str] | None = None,
) -> None:
    stream = container.add_stream(codec, rate=25)
    stream.width, stream.height = WIDTH, HEIGHT
    stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    stream.codec_context.max_b_frames, stream.codec_context.gop_size = b_frames, 12
    stream.options = {"b": "4M", **(options or {})}
    if times is not None:
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
    for number in range(frames):
        picture = av.VideoFrame.from_ndarray(stamp(np.full((HEIGHT, WIDTH, 3), 128, np.uint8), CLIP, number))
        if times is not None:
            picture.pts, picture.time_base = times[number], Fraction(1, 1000)
        container.mux(stream.encode(picture))
    container.mux(stream.encode())
    container.close()


def uneven_times(frames: int) -> list[int]:
    return np.cumsum(np.random.default_rng(0).integers(10, 90, frames)).tolist()


def turn(source: Path, path: Path, degrees: int) -> Path:
    """The same video with a rotation (clockwise, as phones write it) in the track header of the MP4."""
    data = bytearray(source.read_bytes())
    box = data.find(b"tkhd")
    begin = box + 8 + (20 if data[box + 4] == 0 else 32) + 16
    one = 1 << 16
    a, b = {90: (0, one), 180: (-one, 0), 270: (0, -one)}[degrees]
    data[begin : begin + 36] = struct.pack(">9i", a, b, 0, -b, a, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


FILES: dict[str, tuple[int, Access, Callable[[Path], Path]]] = {
    "plain.mp4": (37, Access.CLOSED, lambda path: write_video(path, 37)),
    "b_frames.mp4": (101, Access.CLOSED, lambda path: write_video(path, 101, b_frames=3)),
    "open_groups.mp4": (61, Access.OPEN, lambda path: write_video(path, 61, b_frames=3, options=OPEN_GROUPS)),
    "uneven.mp4": (61, Access.CLOSED, lambda path: write_video(path, 61, b_frames=2, times=uneven_times(61))),
    "one.mp4": (1, Access.CLOSED, lambda path: write_video(path, 1)),
    "plain.avi": (53, Access.OPEN, lambda path: write_video(path, 53, "mpeg4")),
    "h264.avi": (53, Access.OPEN, lambda path: write_video(path, 53)),
    "broadcast.ts": (53, Access.OPEN, lambda path: write_video(path, 53, b_frames=2)),
    "hidden.webm": (31, Access.COUNTED, lambda path: write_video(path, 31, "libvpx", options=ALTERNATE)),
    "b_frames.avi": (53, Access.COUNTED, lambda path: write_video(path, 53, "mpeg4", b_frames=2)),
    "motion_jpeg.avi": (21, Access.OPEN, lambda path: write_video(path, 21, "mjpeg")),
    "b_frames.mkv": (53, Access.CLOSED, lambda path: write_video(path, 53, b_frames=2)),
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("videos")
    return {name: make(folder / name) for name, (_, _, make) in FILES.items()}


def numbers(frames: NDArray[np.uint8]) -> list[int]:
    stamps = [read_stamp(frame) for frame in frames]
    assert {one.clip for one in stamps} <= {CLIP}
    return [one.frame for one in stamps]


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", FILES)
def test_every_decoder_returns_exactly_the_frames_asked_for(videos: dict[str, Path], name: str, decoder: str) -> None:
    length, access, _ = FILES[name]
    path = videos[name]
    info = probe(path)
    assert (info.frames, info.width, info.height, info.rotation, info.access) == (length, WIDTH, HEIGHT, 0, access)
    assert open_video(path, decoder).decoder == (decoder if access is Access.CLOSED else "av")
    draw = np.random.default_rng(1)
    for count in (1, 3, 16):
        wanted = draw.integers(0, length, count).tolist()  # any order, repeats
        assert numbers(read_frames(path, wanted, decoder)) == wanted
    window = list(range(length // 3, min(length, length // 3 + 16)))
    assert numbers(read_frames(path, window, decoder)) == window


@pytest.mark.parametrize("decoder", DECODERS)
@pytest.mark.parametrize("name", ["open_groups.mp4", "uneven.mp4", "b_frames.avi"])
def test_a_stream_yields_every_frame_once_in_order(videos: dict[str, Path], name: str, decoder: str) -> None:
    frames = list(open_video(videos[name], decoder).frames())
    assert [read_stamp(frame.image).frame for frame in frames] == list(range(FILES[name][0]))
    assert [frame.number for frame in frames] == list(range(FILES[name][0]))


def test_times_are_those_of_the_frames_not_of_the_mean_rate(videos: dict[str, Path]) -> None:
    times = np.array(uneven_times(61)) / 1000
    found = [frame.timestamp for frame in open_video(videos["uneven.mp4"]).frames()]
    assert np.allclose(found, times - times[0], atol=1e-3)
    assert probe(videos["uneven.mp4"]).rate == pytest.approx(60 / (times[-1] - times[0]), rel=1e-3)


def test_part_of_a_stream(videos: dict[str, Path]) -> None:
    part = list(open_video(videos["b_frames.mp4"]).frames(30, 63))
    assert [read_stamp(frame.image).frame for frame in part] == list(range(30, 63))
    with pytest.raises(ValueError, match=r"b_frames\.mp4: frames 30\.\.102 asked for, it has 101"):
        list(open_video(videos["b_frames.mp4"]).frames(30, 102))


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotated_video_is_upright_in_every_decoder(videos: dict[str, Path], tmp_path: Path, degrees: int) -> None:
    path = turn(videos["b_frames.mp4"], tmp_path / f"turned_{degrees}.mp4", degrees)
    flat = read_frames(videos["b_frames.mp4"], [40, 11])
    upright = np.rot90(flat, -degrees // 90, axes=(1, 2))
    info = probe(path)
    assert (info.height, info.width) == upright.shape[1:3]
    for decoder in DECODERS:
        assert np.array_equal(read_frames(path, [40, 11], decoder), upright)


def test_decoders_agree_on_pixels(shared_data: Path) -> None:
    path = shared_data / "faces" / "face_noface.mov"  # HEVC from a phone
    frames = [read_frames(path, [3, 100, 57], decoder) for decoder in DECODERS]
    assert np.abs(frames[0].astype(int) - frames[1]).max() <= 2
    assert np.abs(frames[0].astype(int) - frames[2]).max() <= 2


@pytest.mark.parametrize("index", [-1, 37, 1000])
def test_an_index_outside_is_refused_by_name(videos: dict[str, Path], index: int) -> None:
    with pytest.raises(ValueError, match=rf"plain\.mp4: frame {index} is not in 0\.\.36 \(length 37\)"):
        read_frames(videos["plain.mp4"], [0, index])


def test_a_file_that_a_decoder_cannot_open_is_read_by_av(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Matroska written to a pipe has no table to seek by; decord refuses it."""
    with (tmp_path / "piped.mkv").open("wb") as file:
        pipe = type("Pipe", (), {"write": file.write})()
        container: Any = av.open(pipe, "w", format="matroska")
        fill(container, 40, "libx264")
    wanted = [33, 2, 17]
    for decoder in DECODERS:
        assert numbers(read_frames(tmp_path / "piped.mkv", wanted, decoder)) == wanted
    assert "decord cannot open it" in caplog.text


def test_unknown_and_missing_decoders_are_named(videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="decoder 'ffmpeg' is not one of decord, av, torchcodec"):
        read_frames(videos["plain.mp4"], [0], "ffmpeg")
    monkeypatch.setitem(__import__("sys").modules, "torchcodec.decoders", None)
    with pytest.raises(ValueError, match=r"'torchcodec' cannot be loaded .*ssm-platform\[torchcodec\]"):
        read_frames(videos["plain.mp4"], [0], "torchcodec")


def test_no_frames_asked_for(videos: dict[str, Path]) -> None:
    assert read_frames(videos["plain.mp4"], []).shape == (0, HEIGHT, WIDTH, 3)


def audio_only(path: Path) -> Path:
    container: Any = av.open(str(path), "w")
    stream = container.add_stream("aac", rate=16000)
    sound = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
    sound.sample_rate = 16000
    container.mux(stream.encode(sound))
    container.mux(stream.encode())
    container.close()
    return path


def cut(source: Path, path: Path, part: float = 0.6) -> Path:
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    return path


def unknown_codec(source: Path, path: Path) -> Path:
    path.write_bytes(source.read_bytes().replace(b"avc1", b"zzz9"))
    return path


def test_unusable_files_say_path_and_reason(videos: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("frame,label\n" * 50)
    bad = {
        tmp_path / "absent.mp4": "No such file",
        tmp_path / "empty.mp4": "empty",
        tmp_path / "text.mp4": "truncated or not a video",
        audio_only(tmp_path / "audio.m4a"): "no video stream",
        unknown_codec(videos["plain.mp4"], tmp_path / "unknown.mp4"): "codec|decod|not a video",
        cut(videos["plain.mp4"], tmp_path / "cut.mp4"): "truncated",
        cut(videos["motion_jpeg.avi"], tmp_path / "cut.avi"): "truncated",
        cut(videos["b_frames.mkv"], tmp_path / "cut.mkv"): "truncated",
    }
    for path, reason in bad.items():
        for call in (probe, lambda path: read_frames(path, [0]), open_video):
            with pytest.raises(UnreadableVideo, match=f"(?s){path.name}: .*({reason})") as caught:
                call(path)
            assert caught.value.path == str(path)


def test_an_mp4_cut_behind_its_header_is_truncated_not_short(tmp_path: Path) -> None:
    fill(av.open(str(tmp_path / "whole.mp4"), "w", options={"movflags": "faststart"}), 40, "mpeg4")
    with pytest.raises(UnreadableVideo, match=r"cut\.mp4: truncated"):
        probe(cut(tmp_path / "whole.mp4", tmp_path / "cut.mp4", 0.7))


@pytest.mark.parametrize("decoder", DECODERS)
def test_damage_inside_is_an_error_not_another_frame(videos: dict[str, Path], tmp_path: Path, decoder: str) -> None:
    data = bytearray(videos["b_frames.mp4"].read_bytes())
    middle = data.find(b"mdat") + (len(data) - data.find(b"mdat")) // 3
    data[middle : middle + 3000] = np.random.default_rng(0).integers(0, 256, 3000, np.uint8).tobytes()
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    with pytest.raises(UnreadableVideo, match=r"damaged\.mp4"):
        read_frames(path, list(range(101)), decoder)


def test_errors_travel_between_processes() -> None:
    import pickle

    error = pickle.loads(pickle.dumps(UnreadableVideo("a/b.mp4", "truncated")))
    assert (str(error), error.path, error.reason) == ("a/b.mp4: truncated", "a/b.mp4", "truncated")


def video_record(source: str, start: int, length: int) -> Record:
    return Record(clip="c", source=source, kind="video", start=start, length=length)


def test_frames_of_a_record_count_from_its_start(videos: dict[str, Path]) -> None:
    root = videos["b_frames.mp4"].parent
    source = open_frames(video_record("b_frames.mp4", 20, 50), root)
    assert source.length == 50
    assert numbers(source.read([49, 0, 7, 7])) == [69, 20, 27, 27]
    with pytest.raises(ValueError, match=r"frame 50 is not in 0\.\.49"):
        source.read([50])
    source.close()
    with pytest.raises(UnreadableVideo, match=r"needs frames 90\.\.139, the video has 101"):
        open_frames(video_record("b_frames.mp4", 90, 50), root)


def test_frames_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "seq").mkdir()
    names = tuple(f"{number}.png" for number in (998, 999, 1000))
    for number, name in enumerate(names):
        cv2.imwrite(str(tmp_path / "seq" / name), stamp(np.full((64, 64, 3), 90, np.uint8), CLIP, number))
    source = open_frames(Record(clip="c", source="seq", kind="frames", start=0, length=3, files=names), tmp_path)
    assert numbers(source.read([2, 0, 2])) == [2, 0, 2]
    cv2.imwrite(str(tmp_path / "seq" / "999.png"), np.zeros((64, 70, 3), np.uint8))
    with pytest.raises(UnreadableVideo, match=r"one size; found 998\.png 64x64, 999\.png 70x64"):
        source.read([0, 1])
    (tmp_path / "seq" / "999.png").unlink()
    with pytest.raises(UnreadableVideo, match=r"999\.png: No such file"):
        source.read([1])


def test_images_become_upright_rgb(tmp_path: Path) -> None:
    red = np.zeros((40, 60, 3), np.uint8)
    red[:, :30, 0] = 250
    cv2.imwrite(str(tmp_path / "colour.png"), red[..., ::-1])
    assert np.array_equal(read_image(tmp_path / "colour.png"), red)
    cv2.imwrite(str(tmp_path / "grey.png"), red[..., 0])
    assert np.array_equal(read_image(tmp_path / "grey.png"), np.repeat(red[..., :1], 3, axis=2))
    cv2.imwrite(str(tmp_path / "deep.png"), red[..., ::-1].astype(np.uint16) * 257)
    assert np.array_equal(read_image(tmp_path / "deep.png"), red)
    alpha = np.dstack([red[..., ::-1], np.full((40, 60), 128, np.uint8)])
    cv2.imwrite(str(tmp_path / "alpha.png"), alpha)
    assert np.array_equal(read_image(tmp_path / "alpha.png"), red)


def test_the_orientation_of_a_photograph_is_applied(tmp_path: Path) -> None:
    from PIL import Image

    image = Image.new("RGB", (60, 40), (200, 30, 30))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn clockwise to display
    image.save(tmp_path / "photo.jpg", exif=exif)
    assert read_image(tmp_path / "photo.jpg").shape == (60, 40, 3)


def test_a_truncated_jpeg_is_refused_not_filled_with_grey(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "whole.jpg"), noise)
    with pytest.raises(UnreadableVideo, match=r"cut\.jpg: truncated JPEG"):
        read_image(cut(tmp_path / "whole.jpg", tmp_path / "cut.jpg"))
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(UnreadableVideo, match=r"text\.jpg: not an image"):
        read_image(tmp_path / "text.jpg")
