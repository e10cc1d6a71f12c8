"""The picture of a read video: frames of it above the timeline of what a model says of them.

    python bench/film.py VIDEO --out docs/real_video.png [--model shipped] [--frames 12]

Reads as `jobs/predict.py` does, the main face alone, and draws the timeline that `--plots` draws.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssm_platform.media.video import open_video
from ssm_platform.read.reader import Reader
from ssm_platform.read.timeline import timeline

STRIP = 0.13  # of the picture's height


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="shipped")
    parser.add_argument("--frames", type=int, default=12)
    arguments = parser.parse_args()
    reader = Reader(arguments.model, faces="main")
    rows = reader.read(arguments.video)
    figure = timeline(rows[rows["success"] == 1], reader.model.vocabulary, arguments.video.name)

    wide, high = figure.get_size_inches()
    figure.set_size_inches(wide, high / (1 - STRIP))
    figure.get_layout_engine().set(rect=(0, 0, 1, 1 - STRIP))
    figure.canvas.draw()
    place, (first, last) = figure.axes[0].get_position(), figure.axes[0].get_xlim()
    wanted = ((np.arange(arguments.frames) + 0.5) / arguments.frames * len(rows)).astype(int).tolist()
    width = place.width * float(rows["timestamp"].max()) / (last - first) / arguments.frames
    for frame in open_video(arguments.video).frames():
        if frame.number in wanted:
            middle = place.x0 + place.width * (frame.timestamp - first) / (last - first)
            picture = figure.add_axes((middle - width / 2, 1 - STRIP, 0.97 * width, STRIP))
            face = rows[rows["frame"] == frame.number].iloc[0]
            picture.imshow(_square(frame.image, face["FaceRectX"] + face["FaceRectWidth"] / 2))
            picture.axis("off")
    figure.savefig(arguments.out, dpi=110)


def _square(frame: NDArray[np.uint8], middle: float) -> NDArray[np.uint8]:
    """As much of a frame as is high, about the face at `middle`."""
    high, wide = frame.shape[:2]
    first = int(np.clip(np.nan_to_num(middle, nan=wide / 2) - high / 2, 0, wide - high))
    return frame[:, first : first + high]


if __name__ == "__main__":
    main()
