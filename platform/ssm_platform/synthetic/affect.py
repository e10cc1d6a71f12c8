"""Corpora of valence and arousal in their owners' grammars: Aff-Wild2's challenge and its multi-task list, AFEW-VA.

The signal is planted: affect = `MAP` * AU intensities / 5, plus a slow drift that nothing in the picture shows, and
that map is all a model has to find. Letters: T frames, A action units, K = 2 dimensions.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ssm.labels import AFFECT, links
from ssm.labels import Vocabulary as Labels
from ssm_platform.corpora.readers.action_units.affwild2_au import AUS
from ssm_platform.corpora.readers.expressions.affwild2_expr import CLASSES
from ssm_platform.synthetic.behaviour import ACTIVE
from ssm_platform.synthetic.dynamics import TOP, Intensity, drift
from ssm_platform.synthetic.face.muscles import AU_ORDER
from ssm_platform.synthetic.media import write_images
from ssm_platform.synthetic.performance import Performance
from ssm_platform.synthetic.recording import Recording
from ssm_platform.synthetic.spec import SyntheticSpec

Affect = NDArray[np.float64]

PLANTED: Mapping[str, Mapping[int, float]] = MappingProxyType(
    {
        "valence": {12: 0.9, 6: 0.4, 4: -0.6, 15: -0.8, 9: -0.5, 17: -0.3},
        "arousal": {5: 0.7, 26: 0.8, 25: 0.3, 1: 0.3, 2: 0.3, 20: 0.4, 24: -0.4},
    }
)
"""What each action unit at full strength adds to valence and to arousal."""

DRIFT = 0.05
"""Deviation of the part of affect that no picture shows."""

PARTS: Mapping[str, str] = MappingProxyType(
    {f"v{number:03d}": "validation" if number % 3 == 0 else "train" for number in range(1, 101)}
)
"""Video -> part."""

_UNLABELLED = -5
_LISTS = {"train": "training_set_annotations.txt", "validation": "validation_set_annotations.txt"}
_PIECES = "pieces"


def affect_map() -> Affect:
    """`PLANTED` as a matrix (K A)."""
    return np.array([[PLANTED[name].get(au, 0.0) for au in AU_ORDER] for name in AFFECT])


def affect_course(rng: np.random.Generator, intensity: Intensity, rate: float) -> Affect:
    """Valence and arousal (T K) of a face that goes through `intensity` (T A)."""
    shown = intensity.astype(np.float64) / TOP @ affect_map().T
    hidden = DRIFT * drift(rng, len(intensity), rate, len(AFFECT), seconds=2.0)
    return np.clip(shown + hidden, -1, 1)


def write_challenge(
    root: Path, record: Recording, played: Performance, codes: NDArray[np.int64], rng: np.random.Generator,
    spec: SyntheticSpec, rate: float,
) -> None:  # fmt: skip
    """Aff-Wild2's valence and arousal: line i after the header labels frame i."""
    _write_crops(root, record, played)
    affect = _with_gaps(rng, affect_course(rng, played.intensity, rate), spec.lab.missing)
    folder = {"train": "Train_Set", "validation": "Validation_Set"}[PARTS[record.subject]]
    lines = ["valence,arousal", *(f"{v:g},{a:g}" for v, a in affect.round(3))]
    _write_lines(root / "VA_Estimation_Challenge" / folder / f"{record.subject}.txt", lines)


def write_multi_task(
    root: Path, record: Recording, played: Performance, codes: NDArray[np.int64], rng: np.random.Generator,
    spec: SyntheticSpec, rate: float,
) -> None:  # fmt: skip
    """s-Aff-Wild2's rows of one video; `join_lists` puts them into the owner's two lists."""
    _write_crops(root, record, played)
    affect = _with_gaps(rng, affect_course(rng, played.intensity, rate), spec.lab.missing).round(3)
    classes = expression_codes(played.intensity)
    columns = [AU_ORDER.index(au) for au in AUS]
    aus = (codes[:, columns] >= ACTIVE).astype(int)
    lines = [
        f"{record.subject}/{frame:05d}.jpg,{v:g},{a:g},{classes[frame - 1]},{','.join(map(str, aus[frame - 1]))}"
        for frame, (v, a) in enumerate(affect, start=1)
    ]
    _write_lines(root / _PIECES / PARTS[record.subject] / f"{record.subject}.txt", lines)


def join_lists(root: Path) -> None:
    """The pieces of all videos, in order, as the owner's lists."""
    for part, name in _LISTS.items():
        pieces = sorted((root / _PIECES / part).glob("*.txt"))
        rows = [line for piece in pieces for line in piece.read_text().splitlines()]
        _write_lines(root / name, ["image,valence,arousal,expression,aus", *rows])
        for piece in pieces:
            piece.unlink()
        if pieces:
            (root / _PIECES / part).rmdir()
    (root / _PIECES).rmdir()


def write_afewva(
    root: Path, record: Recording, played: Performance, codes: NDArray[np.int64], rng: np.random.Generator,
    spec: SyntheticSpec, rate: float,
) -> None:  # fmt: skip
    """AFEW-VA's folder of a clip: frames from 0, whole numbers -10..10 in one JSON file."""
    name = record.subject.removeprefix("v")
    numbers = range(record.frames)
    write_images(root / name, (f"{number:05d}.png" for number in numbers), played.frames())
    affect = np.rint(10 * affect_course(rng, played.intensity, rate)).astype(int)
    frames = {f"{n:05d}": {"valence": int(v), "arousal": int(a)} for n, (v, a) in zip(numbers, affect, strict=True)}
    (root / name / f"{name}.json").write_text(json.dumps({"video_id": name, "frames": frames}, indent=1) + "\n")


def expression_codes(intensity: Intensity) -> list[int]:
    """The class (T) by Aff-Wild2's numbers: the prototype that is shown most, neutral (0) where none is active."""
    names = {code: name for code, name in CLASSES.items() if code}
    table = links("emfacs", Labels(expressions=tuple(names.values())))
    shown = np.stack(
        [intensity[:, [AU_ORDER.index(au) for au in table[name]]].mean(1) for name in names.values()], axis=1
    )
    best = np.array(list(names))[shown.argmax(1)]
    return [int(code) for code in np.where(shown.max(1) >= ACTIVE, best, 0)]


def _write_crops(root: Path, record: Recording, played: Performance) -> None:
    names = (f"{number:05d}.jpg" for number in range(1, record.frames + 1))
    write_images(root / "cropped" / record.subject, names, played.frames())


def _with_gaps(rng: np.random.Generator, affect: Affect, share: float) -> Affect:
    """The same with a stretch that nobody annotated, now and then."""
    frames = len(affect)
    length = max(2, frames // 20)
    if rng.random() < share * frames / length:
        start = int(rng.integers(0, frames - length + 1))
        affect[start : start + length] = _UNLABELLED
    return affect


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
