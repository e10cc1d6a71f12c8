"""Clips shipped as the image files that their frames are stored as, and made pixels where they are trained on.

A clip of 16 frames is a few hundred kilobytes so, a fifth of its pixels or less; they cross Ray's object store, and
the training worker decodes and warps them. On a CPU by the same functions as decode processes do, so to the same bits.
On a GPU by torchvision (nvJPEG) and `grid_sample`: the same geometry, pixels within a few grey levels (OpenCV rounds
places to 1/32 of a pixel, and every JPEG decoder in its own way); frames that are no JPEG, evaluation's clips, and
those of corpora with `photograph` settings take the CPU's way.

Columns instead of `clip` (see `clips`):
    jpeg bytes N          the files of the distinct frames, one after the other
    sizes int32 N T       bytes of each file, 0 past the last
    frame int16 N T       which of them each frame of the clip is
    seed int64 N          of the warp

Legend: N rows, T frames, S side in pixels, H W sides of stored frames.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ssm.training import Augmentation, Photograph, Warp, draw_warp
from ssm_platform.base import UNREAD
from ssm_platform.data.clips import ClipConfig, Columns

if TYPE_CHECKING:  # torch is loaded where it is used
    import torch
    from torch import Tensor

LOG = logging.getLogger(__name__)

_JPEG = b"\xff\xd8"
_OF_THE_ROW = frozenset({"row", "task", "corpus", "record", "start", "seed"})  # what an unread row keeps


class PixelMaker:
    """Makes pixels of columns on `device`, by `threads` on its CPU."""

    def __init__(self, config: ClipConfig, device: torch.device, threads: int = 1) -> None:
        self._config, self._device = config, device
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="pixels")

    def __call__(self, columns: Columns) -> Columns:
        """The columns with `clip`, an array on a CPU, a tensor on a GPU. Rows that no decoder reads are black, without
        labels, and unread."""
        out = {name: np.array(column) for name, column in columns.items() if name not in ("jpeg", "sizes", "frame")}
        clips = list(self._pool.map(self._in_stream(partial(self._clip, columns)), range(len(out["row"]))))
        for row, clip in enumerate(clips):
            if isinstance(clip, str):
                for name in out.keys() - _OF_THE_ROW:
                    out[name][row] = 0
                out["problem"][row], out["sample"][row], out["distinct"][row] = clip, UNREAD, self._config.frames
        out["clip"] = self._stacked([self._black() if isinstance(clip, str) else clip for clip in clips])
        return out

    def _in_stream(self, make: Callable[[int], Any]) -> Callable[[int], Any]:
        """`make` in the caller's stream, whichever thread runs it: a thread's own is the step's, which nobody here
        waits for.
        """
        if self._device.type == "cpu":
            return make
        import torch

        stream = torch.cuda.current_stream(self._device)

        def made(row: int) -> Any:
            with torch.cuda.stream(stream):
                return make(row)

        return made

    def _stacked(self, clips: list[Any]) -> Any:
        if self._device.type == "cpu":
            return np.stack(clips)
        import torch

        from ssm.training import send

        return torch.stack([
            clip if torch.is_tensor(clip) else send(torch.from_numpy(clip), self._device) for clip in clips
        ])  # fmt: skip

    def _black(self) -> NDArray[np.uint8]:
        size = self._config.preprocessing.image_size
        return np.zeros((self._config.frames, size, size, 3), np.uint8)

    def _clip(self, columns: Columns, row: int) -> Any:
        """A clip T S S 3, or why there is none."""
        files = list(_files(columns["jpeg"][row], columns["sizes"][row]))
        if not files:
            return self._black() if not columns["problem"][row] else str(columns["problem"][row])
        corpus, seed, places = int(columns["corpus"][row]), int(columns["seed"][row]), columns["frame"][row]
        spec = self._config.warp_of(corpus)
        plain = spec is not None and spec.photograph == Photograph()
        if spec and plain and self._device.type == "cuda" and all(file.startswith(_JPEG) for file in files):
            with _damage():
                clip = _on_device(files, spec, self._config.preprocessing.image_size, seed, self._device)
                return clip[places.tolist()]
        frames: list[Any] = [cv2.imdecode(np.frombuffer(file, np.uint8), cv2.IMREAD_COLOR_RGB) for file in files]
        if any(frame is None or frame.shape != frames[0].shape for frame in frames):
            return f"corpus {corpus}, record {columns['record'][row]}: frames of different size or no images"
        return self._config.warped(np.stack(frames), corpus, seed)[places]


@contextmanager
def _damage() -> Iterator[None]:
    """What the card cannot decode, and frames of two sizes, are left to the CPU, which reads them or says why not."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        LOG.info("left to the CPU: %s", error)


def _files(data: bytes, sizes: NDArray[np.int32]) -> Iterator[bytes]:
    begin = 0
    for size in sizes[sizes > 0].tolist():
        yield data[begin : begin + size]
        begin += size


def _on_device(files: list[bytes], spec: Augmentation, size: int, seed: int, device: torch.device) -> Tensor:
    import torch
    from torchvision.io import ImageReadMode, decode_jpeg

    stored = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
    frames: Any = decode_jpeg(stored, mode=ImageReadMode.RGB, device=device)
    stacked = torch.stack(frames)
    return warped(stacked, draw_warp(spec, stacked.shape[2], stacked.shape[3], size, seed), size)


def warped(frames: Tensor, warp: Warp, size: int) -> Tensor:
    """Frames uint8 T 3 H W warped as `ssm.training.augment` does, on their device: uint8 T S S 3."""
    import torch
    from torch.nn import functional

    pixels, matrix = frames.float(), warp.matrix
    if warp.factor > 1:
        height, width, matrix = warp.reduced(frames.shape[2], frames.shape[3])
        pixels = functional.interpolate(pixels, (height, width), mode="area").round()
    height, width = pixels.shape[2:]
    # from output pixel centres to places in the source, and those to -1..1 over its edges
    steps = torch.arange(size, device=frames.device, dtype=torch.float32)
    ones = torch.ones(size, size, device=frames.device)
    target = torch.stack([steps.expand(size, size), steps[:, None].expand(size, size), ones], -1)
    source = target @ torch.from_numpy(matrix.T.astype(np.float32)).to(frames.device)
    sides = torch.tensor([width, height], device=frames.device)
    grid = ((2 * source + 1) / sides - 1).expand(len(pixels), size, size, 2)
    found = functional.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    bright = (found.round() * warp.brightness + 0.5).floor() if warp.brightness != 1 else found.round()
    return bright.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()
