"""The ground truth beside a synthetic corpus: what no reader looks at, so that transfer can be measured.

`truth/clips.npz` holds the true AU intensities of every frame (also of FE clips) and each FE clip's true expression
beside the written one; `truth/association.npz` the true P(AU | expression).
Letters: N all frames, C clips, E expressions, A action units.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ssm_platform.synthetic.dynamics import Intensity
from ssm_platform.synthetic.face.muscles import AU_ORDER

FOLDER = "truth"


@dataclass(frozen=True)
class ClipTruth:
    """The truth about one clip, in its record's name. `drawn` (A) says which AUs its expression was given."""

    clip: str
    intensity: Intensity  # T A, 0-5
    expression: str | None = None
    labelled: str | None = None
    drawn: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Association:
    """P(AU | expression): as designed (E A), and as a share of this corpus's clips (E A, nan without clips)."""

    expressions: tuple[str, ...]
    aus: tuple[int, ...]
    designed: NDArray[np.float64]
    drawn: NDArray[np.float64]


@dataclass(frozen=True)
class Truth:
    """The truth about a corpus, by clip."""

    clips: Mapping[str, ClipTruth]
    association: Association | None


def write_clips(path: Path, clips: Iterable[ClipTruth]) -> None:
    """The part of the truth that one job knows, in one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    clips = list(clips)
    nothing = np.zeros(len(AU_ORDER), bool)
    np.savez_compressed(
        path,
        clip=np.array([clip.clip for clip in clips]),
        length=np.array([len(clip.intensity) for clip in clips]),
        intensity=np.concatenate([clip.intensity for clip in clips]).astype(np.float16),
        expression=np.array([clip.expression or "" for clip in clips]),
        labelled=np.array([clip.labelled or "" for clip in clips]),
        drawn=np.array([nothing if clip.drawn is None else clip.drawn for clip in clips]),
    )


def read_clips(path: Path) -> list[ClipTruth]:
    """What `write_clips` wrote."""
    with np.load(path) as stored:
        table = {name: stored[name] for name in stored.files}
    cuts = np.cumsum(table["length"])[:-1]
    intensities = np.split(table["intensity"].astype(np.float32), cuts)
    return [
        ClipTruth(str(clip), intensity, str(expression) or None, str(labelled) or None, drawn if expression else None)
        for clip, intensity, expression, labelled, drawn in zip(
            table["clip"], intensities, table["expression"], table["labelled"], table["drawn"], strict=True
        )
    ]


def write_association(
    root: Path, expressions: tuple[str, ...], designed: NDArray[np.float64], clips: list[ClipTruth]
) -> None:
    """`truth/association.npz` and, for people, `truth/association.json`."""
    drawn = np.full(designed.shape, np.nan)
    for row, expression in enumerate(expressions):
        own = [clip.drawn for clip in clips if clip.expression == expression and clip.drawn is not None]
        if own:
            drawn[row] = np.mean(own, axis=0)
    folder = root / FOLDER
    np.savez(
        folder / "association.npz", expressions=np.array(expressions), aus=AU_ORDER, designed=designed, drawn=drawn
    )
    rows = {
        name: dict(zip(map(str, AU_ORDER), row.round(4), strict=True))
        for name, row in zip(expressions, designed, strict=True)
    }
    (folder / "association.json").write_text(json.dumps(rows, indent=1) + "\n")


def read_truth(root: Path) -> Truth:
    """The truth beside the corpus in `root`; FileNotFoundError where the folder holds none."""
    clips = {clip.clip: clip for clip in read_clips(root / FOLDER / "clips.npz")}
    path = root / FOLDER / "association.npz"
    if not path.is_file():
        return Truth(clips, None)
    with np.load(path) as stored:
        names, aus = tuple(map(str, stored["expressions"])), tuple(map(int, stored["aus"]))
        return Truth(clips, Association(names, aus, stored["designed"], stored["drawn"]))
