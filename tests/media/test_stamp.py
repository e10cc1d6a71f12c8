"""A stamp reads back after H.264, MPEG-4, JPEG and resizing, and never reads back as another number."""

from __future__ import annotations

from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from stamp import LIMIT, Stamp, StampError, read_stamp, stamp


def noisy_frame(size: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", [64, 112, 225])
@pytest.mark.parametrize("numbers", [(0, 0), (LIMIT - 1, LIMIT - 1), (1234, 77)])
def test_stamp_reads_back_from_jpeg_and_after_resizing(size: int, numbers: tuple[int, int]) -> None:
    stamped = stamp(noisy_frame(size, 1), *numbers)
    _, packed = cv2.imencode(".jpg", stamped, [cv2.IMWRITE_JPEG_QUALITY, 30])
    for seen in (stamped, cv2.imdecode(packed, cv2.IMREAD_COLOR), cv2.resize(stamped, (97, 71))):
        assert read_stamp(seen) == Stamp(*numbers)


@pytest.mark.parametrize("codec", ["h264", "mpeg4"])
def test_every_frame_of_a_video_reads_back(codec: str, tmp_path: Path) -> None:
    path = tmp_path / "stamped.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for index in range(40):
            picture = stamp(noisy_frame(64, index), 9, index)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        read = [read_stamp(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    assert read == [Stamp(9, index) for index in range(40)]


def test_frames_without_a_stamp_are_refused() -> None:
    for unreadable in (
        noisy_frame(64, 3),
        np.full((64, 64, 3), 128, np.uint8),
        stamp(noisy_frame(64, 3), 5, 6)[:, ::-1],
    ):
        with pytest.raises(StampError):
            read_stamp(unreadable)


def test_numbers_and_frames_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="clip number 65536"):
        stamp(noisy_frame(64, 0), LIMIT, 0)
    with pytest.raises(ValueError, match="too small"):
        stamp(noisy_frame(32, 0), 1, 1)
