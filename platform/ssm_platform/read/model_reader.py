"""A saved model made ready to read clips: what serving, the command line and notebooks load.

`ModelReader` is `ssm.inference.predictor.Predictor` with a version and answers that travel between processes without
torch. A folder whose preprocessing does not fit its weights, its fingerprints or this code is refused.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ssm.inference import Predictor
from ssm.saved import CONFIG, WEIGHTS
from ssm_platform.models import ModelDescription
from ssm_platform.read.windows import ClipAnswers

_CHUNK = 2**22
_TRIES = 5


class ModelReader:
    """A model on its device. Not for use by several threads at once."""

    def __init__(
        self, folder: str | Path, device: str = "auto", threads: int | None = None, *, compiled: bool = False
    ) -> None:
        """Load `folder`; ValueError names what is absent, damaged or does not fit together.

        `compiled`: the backbone goes through torch.compile, for a reader that lives long on a GPU.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        self._predictor, version = _whole(
            Path(folder),
            lambda: Predictor.from_pretrained(folder, device=_device(device), compiled=compiled, local_files_only=True),
        )
        self.description = ModelDescription(
            version=version,
            frames=self._predictor.frames,
            vocabulary=self._predictor.model.vocabulary,
            preprocessing=self._predictor.preprocessing,
            precision=self._predictor.precision,
            rule=self._predictor.rule,
            fitted=self._predictor.model.facts.rule is not None,
            smoothing=self._predictor.smoothing,
            evidence=self._predictor.model.au_head.gives_evidence,
            abstention=self._predictor.abstention,
            places=self._predictor.model.au_head.gives_places,
        )

    def read(self, clips: NDArray[np.uint8]) -> ClipAnswers:
        """Clips uint8 (B, T, S, S, 3), as `ssm.interface.preprocessing.center` cuts them. ValueError for others."""
        self.check(clips)
        answers = self._predictor.read(clips)
        return ClipAnswers(
            answers.au_probability, answers.expression, answers.why, answers.affect, answers.affect_why,
            answers.au_uncertainty,
        )  # fmt: skip

    def where(self, clips: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Where each AU is looked for in clips as `read` takes them: shares (B, T, A, h, w) of the grid's places.

        ValueError of a model that looks at none.
        """
        self.check(clips)
        return self._predictor.where(clips)

    def check(self, clips: NDArray[Any]) -> None:
        """ValueError unless the array is a batch of clips for this model."""
        size, frames = self.description.preprocessing.image_size, self.description.frames
        if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[1:] != (frames, size, size, 3) or not len(clips):
            raise ValueError(
                f"clips are {clips.dtype} {list(clips.shape)}: must be uint8 [B, {frames}, {size}, {size}, 3]"
            )

    def blank(self) -> NDArray[np.uint8]:
        """The smallest input: one grey clip."""
        size = self.description.preprocessing.image_size
        return np.full((1, self.description.frames, size, size, 3), 128, np.uint8)


def _whole(folder: Path, load: Callable[[], Predictor]) -> tuple[Predictor, str]:
    """What is loaded from `folder` and its version, of one and the same model though it is replaced meanwhile."""
    for _ in range(_TRIES):
        before = _stamps(folder)
        try:
            loaded, version = load(), _version(folder)
        except (ValueError, OSError):
            if _stamps(folder) == before:
                raise
            continue
        if _stamps(folder) == before:
            return loaded, version
    raise ValueError(f"{folder}: is replaced again and again while it is read")


def _stamps(folder: Path) -> list[tuple[int, ...] | None]:
    """What tells one state of the files from another."""
    return [_stamp(folder / name) for name in (CONFIG, WEIGHTS)]


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        facts = path.stat()
    except OSError:
        return None
    return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns


def _version(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in (CONFIG, WEIGHTS):
        with (folder / name).open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _device(name: str) -> str:
    if name != "auto":
        return name
    return "cuda" if torch.cuda.is_available() else "cpu"
