"""What FFmpeg's encoders write against what we read: containers x codecs x pixel formats x rotations.

    python bench/field.py --out reports/field        # needs the ffmpeg and ffprobe commands

Every file is made by the ffmpeg command. Frame counts, times and colours are compared with ffmpeg's and ffprobe's own:
counts exactly, times to a millisecond (where ffprobe's own ascend: those of MXF with B-frames do not), colours by the
mean and the 99th percentile of the difference per channel. A combination that this ffmpeg cannot write is left out and
counted. Writes field.json and prints what differs.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssm_platform.media.video import open_video

WIDTH, HEIGHT, FRAMES = 160, 96, 25
_LEFT = "scale=in_h_chr_pos=0:in_v_chr_pos=128"  # older commands pass over where 10-bit H.264 and H.265 say chroma lies
_PATIENCE = 30.0  # seconds for one file
MILLISECOND = 1e-3
MEAN, TAIL = 1.5, 12.0  # two versions of one scaler round differently; a wrong matrix or range is off by far more

CONTAINERS = ("mp4", "mov", "mkv", "webm", "avi", "ts", "mpg", "flv", "wmv", "ogv", "3gp", "mxf", "gif")
CODECS = {
    "libx264": ("-c:v", "libx264", "-g", "12", "-bf", "2"),
    "libx264 open groups": ("-c:v", "libx264", "-x264-params", "open-gop=1:bframes=3:keyint=10:scenecut=0"),
    "libx265": ("-c:v", "libx265", "-x265-params", "log-level=0"),
    "mpeg4": ("-c:v", "mpeg4", "-bf", "2", "-q:v", "2"),
    "mpeg2video": ("-c:v", "mpeg2video", "-q:v", "2"),
    "mjpeg": ("-c:v", "mjpeg", "-q:v", "2"),
    "libvpx": ("-c:v", "libvpx", "-b:v", "2M", "-auto-alt-ref", "1", "-lag-in-frames", "16"),
    "libvpx-vp9": ("-c:v", "libvpx-vp9", "-b:v", "2M", "-deadline", "realtime", "-cpu-used", "8"),
    "libsvtav1": ("-c:v", "libsvtav1", "-preset", "12"),
    "prores_ks": ("-c:v", "prores_ks"),
    "ffv1": ("-c:v", "ffv1"),
    "libtheora": ("-c:v", "libtheora", "-q:v", "8"),
    "flv1": ("-c:v", "flv1", "-q:v", "2"),
    "wmv2": ("-c:v", "wmv2", "-q:v", "2"),
    "gif": ("-c:v", "gif"),
}
_AV1 = ("mp4", "mkv", "webm")  # elsewhere, and in other pixel formats, the encoder hangs instead of refusing
FORMATS = ("yuv420p", "yuvj420p", "yuv422p", "yuv444p", "yuv420p10le", "gray", "yuva420p", "rgb24", "bgr8")
ROTATIONS = (0, 90, 180, 270)
COLOURS = {
    "unsaid": (),
    "bt709": ("-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"),
    "bt601": ("-colorspace", "smpte170m", "-color_primaries", "smpte170m", "-color_trc", "smpte170m"),
    "full range": ("-color_range", "pc"),
}


@dataclass(frozen=True)
class Case:
    """One file: what it is made of."""

    container: str
    codec: str
    pixels: str = "yuv420p"
    rotation: int = 0
    colours: str = "unsaid"


@dataclass(frozen=True)
class Result:
    """One file: what differs from ffmpeg; all empty where nothing does."""

    case: Case
    access: str
    counts: str = ""
    times: str = ""
    pixels: str = ""
    refused: str = ""

    @property
    def differs(self) -> bool:
        return bool(self.counts or self.times or self.pixels or self.refused)


def cases() -> Iterator[Case]:
    """Each container with each codec; each codec's pixel formats; rotations and colours where they can be written."""
    for container, codec in itertools.product(CONTAINERS, CODECS):
        if codec != "libsvtav1" or container in _AV1:
            yield Case(container, codec)
    for codec, pixels in itertools.product(CODECS, FORMATS[1:]):
        if codec != "libsvtav1" or pixels == "yuv420p10le":
            yield Case("mkv", codec, pixels)
    codecs = ("libx264", "libx265", "mpeg4", "libx264 open groups")
    turned = itertools.product(("mp4", "mov"), codecs, ROTATIONS[1:])
    yield from (Case(container, codec, "yuv420p", rotation) for container, codec, rotation in turned)
    yield from (Case("mp4", codec, "yuv420p", 0, c) for codec in codecs[:2] for c in COLOURS if c != "unsaid")


def write(case: Case, folder: Path) -> Path | None:
    """The file of a case; None where this ffmpeg cannot write it."""
    path = folder / f"v.{case.container}"
    source = ("-f", "lavfi", "-i", f"testsrc2=size={WIDTH}x{HEIGHT}:rate=25,gblur=sigma=2", "-frames:v", str(FRAMES))
    words = (*source, *CODECS[case.codec], "-pix_fmt", case.pixels, *COLOURS[case.colours], "-strict", "-2")
    made = _ffmpeg(*words, "-y", str(path))
    probed = _ffprobe(path, "stream=pix_fmt") if made else []
    if not made or not probed or (case.pixels not in probed[0] and case.pixels != "yuvj420p"):
        return None  # ffmpeg falls back to a format of its own
    if not case.rotation:
        return path
    turned = folder / f"turned.{case.container}"
    rotate = ("-c", "copy", "-metadata:s:v:0", f"rotate={case.rotation}")
    return turned if _ffmpeg("-i", str(path), *rotate, "-y", str(turned)) else None


def compare(case: Case, path: Path) -> Result:
    """One file by us and by ffmpeg."""
    try:
        video = open_video(path)
        ours = list(video.frames())
    except ValueError as error:
        return Result(case, "", refused=str(error).replace(str(path), path.name))
    size = (video.facts.width, video.facts.height)
    theirs = _decoded(path, size)
    if len(theirs) != len(ours):
        return Result(case, video.index.info.access.value, counts=f"{len(ours)}, ffmpeg {len(theirs)}")
    images = np.stack([frame.image for frame in ours])
    off = np.abs(images.astype(np.int16) - theirs)
    mean, tail = float(off.mean()), float(np.percentile(off, 99))
    pixels = f"mean {mean:.2f}, 99 % below {tail:.0f}" if mean > MEAN or tail > TAIL else ""
    return Result(case, video.index.info.access.value, "", _times([f.timestamp for f in ours], path), pixels)


def _times(ours: list[float], path: Path) -> str:
    told = [row.split(",")[0] for row in _ffprobe(path, "frame=best_effort_timestamp_time")]
    if "N/A" in told or len(told) != len(ours):
        return ""
    theirs = np.array(told, float) - float(told[0])
    if np.any(np.diff(theirs) <= 0):
        return ""  # MXF with B-frames: ffprobe's own times do not ascend
    worst = float(np.abs(np.array(ours) - theirs).max())
    return f"up to {worst * 1000:.1f} ms" if worst > MILLISECOND else ""


def _decoded(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """All frames as the ffmpeg command shows them: upright, RGB."""
    said = " ".join(_ffprobe(path, "stream=pix_fmt,chroma_location"))
    sited = ("-vf", _LEFT) if "10le" in said and "left" in said else ()
    words = (
        "-i",
        str(path),
        "-map",
        "0:v:0",
        "-vsync",
        "passthrough",
        *sited,
        "-f",
        "rawvideo",
        "-pix_fmt",
        "rgb24",
        "-",
    )
    raw = subprocess.run(["ffmpeg", "-v", "error", *words], capture_output=True, check=False, timeout=120).stdout
    width, height = size
    frames = len(raw) // (width * height * 3)
    return np.frombuffer(raw, np.uint8, frames * width * height * 3).reshape(-1, height, width, 3)


def _ffmpeg(*words: str) -> bool:
    """Whether the command did it; some encoders hang where the container does not take them."""
    command = ["ffmpeg", "-v", "error", "-nostdin", *words]
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=_PATIENCE).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _ffprobe(path: Path, entries: str) -> list[str]:
    words = ("-v", "error", "-select_streams", "v:0", "-show_entries", entries, "-of", "csv=p=0", str(path))
    done = subprocess.run(["ffprobe", *words], capture_output=True, text=True, check=False, timeout=120)
    return [line.strip(",") for line in done.stdout.splitlines() if line.strip()]


def _tell(result: Result) -> None:
    if result.differs:
        told = {name: text for name, text in asdict(result).items() if name != "case" and text}
        print(result.case, told, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of field.json")
    arguments = parser.parse_args()
    results, unwritten = list[Result](), 0
    for case in cases():
        with tempfile.TemporaryDirectory() as folder:
            path = write(case, Path(folder))
            if path is None:
                unwritten += 1
            else:
                results.append(compare(case, path))
                _tell(results[-1])
    different = [result for result in results if result.differs]
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "field.json").write_text(json.dumps([asdict(result) for result in results], indent=1))
    print(f"{len(results)} files, {len(different)} differ; {unwritten} combinations this ffmpeg does not write")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
