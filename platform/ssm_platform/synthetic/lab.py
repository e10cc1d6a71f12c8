"""Corpora of long recordings in their owners' grammars: BP4D (image folders, occurrence tables), DISFA (videos,
intensities), and by `affect` those of valence and arousal.

A `LabJob` writes one recording whole: frames, label files, its part of the truth. It depends on nothing but its fields,
so jobs run anywhere in any order. Letters: T frames, A action units.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ssm_platform.corpora.readers.action_units.bp4d import PARTS as BP4D_PARTS
from ssm_platform.corpora.readers.action_units.bp4d import PREVALENCE as BP4D_PREVALENCE
from ssm_platform.corpora.readers.action_units.disfa import CORPUS as DISFA
from ssm_platform.corpora.readers.action_units.disfa import PARTS as DISFA_PARTS
from ssm_platform.synthetic import affect
from ssm_platform.synthetic.behaviour import ACTIVE, co_occurrence, prevalence
from ssm_platform.synthetic.dynamics import Drive, coded
from ssm_platform.synthetic.face.muscles import AU_ORDER
from ssm_platform.synthetic.media import write_images, write_video
from ssm_platform.synthetic.performance import Performance, lab_performance, person, stream
from ssm_platform.synthetic.recording import Recording
from ssm_platform.synthetic.spec import SyntheticSpec
from ssm_platform.synthetic.truth import ClipTruth, write_clips

Codes = NDArray[np.int64]

_BP4D_COLUMNS = (1, 2, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15, 16, 17, 20, 23, 24, 25, 26)
_BP4D_UNCODED = (11, 16, 25, 26)
_BP4D_INTENSITIES = (6, 10, 12, 14, 17)
_DISFA_AUS = (1, 2, 4, 5, 6, 9, 12, 15, 17, 20, 25, 26)
_DISFA_VIDEOS = (
    ("Videos_LeftCamera", "LeftVideo{}_comp.avi"),
    ("Video_LeftCamera", "LeftVideo{}_Comp.avi"),
    ("Videos_LeftCamera", "leftvideo{}_comp.AVI"),
)
_MISSING = 9


@dataclass(frozen=True)
class LabCorpus:
    """A row of the table of lab corpora."""

    rate: float
    parts: Mapping[str, str]
    published: Mapping[int, float]
    recordings: Callable[[str, SyntheticSpec], list[Recording]]
    write: Callable[[Path, Recording, Performance, Codes, np.random.Generator, SyntheticSpec, float], None]
    lists: Callable[[Path], None] | None = None  # what is written once, when every recording is there


@dataclass(frozen=True)
class LabJob:
    """Writes one recording of a lab corpus below `root`."""

    corpus: str
    recording: Recording
    spec: SyntheticSpec
    seed: int

    @property
    def name(self) -> str:
        """Unique among the corpus's jobs."""
        return self.recording.clip

    def run(self, root: Path) -> None:
        """Frames, labels and truth; running it again writes the same files."""
        row, record, lab = LAB_CORPORA[self.corpus], self.recording, self.spec.lab
        drive = Drive(
            active=prevalence(self.corpus, row.published),
            mixing=np.asarray(np.linalg.cholesky(co_occurrence()), float),
            trait=lab.trait,
        )
        rng = stream(self.seed, self.corpus, "recording", record.clip)
        room = stream(self.seed, self.corpus, "room", record.subject)
        face = person(self.seed, self.corpus, record.subject)
        played = lab_performance(face, rng, room, drive, record.frames, row.rate, lab.nuisance, self.spec.size)
        codes = coded(rng, played.intensity, row.rate, lab.jitter)
        row.write(root, record, played, codes, rng, self.spec, row.rate)
        write_clips(root / "truth" / "parts" / f"{record.clip}.npz", [ClipTruth(record.clip, played.intensity)])


def lab_jobs(corpus: str, spec: SyntheticSpec, seed: int) -> list[LabJob]:
    """One job for each recording, subjects in turns from the corpus's published parts."""
    row = LAB_CORPORA[corpus]
    subjects = _in_turns(row.parts, spec.lab.subjects)
    return [LabJob(corpus, record, spec, seed) for subject in subjects for record in row.recordings(subject, spec)]


def _in_turns(parts: Mapping[str, str], count: int) -> list[str]:
    """The first `count` subjects, taken from each part in turn, so that every part has some."""
    groups = [[who for who, part in parts.items() if part == name] for name in sorted(set(parts.values()))]
    mixed = [who for turn in itertools.zip_longest(*groups) for who in turn if who is not None]
    if count > len(mixed):
        raise ValueError(f"{count} subjects asked for, the corpus has {len(mixed)}: lab.subjects <= {len(mixed)}")
    return mixed[:count]


def _bp4d_recordings(subject: str, spec: SyntheticSpec) -> list[Recording]:
    tasks = [f"T{number}" for number in range(1, spec.lab.sequences + 1)]
    return [Recording(f"{subject}_{task}", subject, task, spec.lab.frames) for task in tasks]


def _disfa_recordings(subject: str, spec: SyntheticSpec) -> list[Recording]:
    return [Recording(subject, subject, "", spec.lab.sequences * spec.lab.frames)]


def _videos(video: str, spec: SyntheticSpec) -> list[Recording]:
    return [Recording(video, video, "", spec.lab.sequences * spec.lab.frames)]


def _clips(video: str, spec: SyntheticSpec) -> list[Recording]:
    return [Recording(video.removeprefix("v"), video, "", spec.lab.sequences * spec.lab.frames)]


def _write_bp4d(
    root: Path, record: Recording, played: Performance, codes: Codes, rng: np.random.Generator, spec: SyntheticSpec,
    rate: float,
) -> None:  # fmt: skip
    """Only the coded part of a task is kept, so frame numbers start anywhere; padding varies between subjects."""
    first, padding = int(rng.integers(1, 2500)), int(rng.choice([0, 4]))
    numbers = range(first, first + record.frames)
    folder = root / "Sequences(2D+3D)" / record.subject / record.task
    write_images(folder, (f"{number:0{padding}d}.jpg" for number in numbers), played.frames())
    unknown = _missing(rng, codes.shape, spec.lab.missing)
    active = np.where(unknown, _MISSING, codes >= ACTIVE).astype(int)
    columns = [_column(active, au, _BP4D_UNCODED) for au in _BP4D_COLUMNS]
    occurrence = [f"{n},{','.join(map(str, row))}" for n, row in zip(numbers, zip(*columns, strict=True), strict=True)]
    name = f"{record.subject}_{record.task}"
    _write_lines(root / "AUCoding/AU_OCC" / f"{name}.csv", [f"0,{','.join(map(str, _BP4D_COLUMNS))}", *occurrence])
    for au in _BP4D_INTENSITIES:
        levels = np.where(unknown, _MISSING, codes)[:, AU_ORDER.index(au)]
        lines = [f"{number},{level}" for number, level in zip(numbers, levels, strict=True)]
        _write_lines(root / f"AUCoding/AU_INT/AU{au:02d}" / f"{name}_AU{au:02d}.csv", lines)


def _write_disfa(
    root: Path, record: Recording, played: Performance, codes: Codes, rng: np.random.Generator, spec: SyntheticSpec,
    rate: float,
) -> None:  # fmt: skip
    """The left camera's video, as the owner's copies mix its names; a file of intensities for each coded AU, from 1."""
    folder, name = _DISFA_VIDEOS[int(record.subject.removeprefix("SN")) % len(_DISFA_VIDEOS)]
    write_video(root / folder / name.format(record.subject), played.frames(), spec.size, rate, quality=18)
    for au in _DISFA_AUS:
        levels = codes[:, AU_ORDER.index(au)]
        lines = [f"{number},{level}" for number, level in enumerate(levels, start=1)]
        _write_lines(root / "ActionUnit_Labels" / record.subject / f"{record.subject}_au{au}.txt", lines)


def _column(active: Codes, au: int, uncoded: tuple[int, ...]) -> list[int]:
    return [_MISSING] * len(active) if au in uncoded else active[:, AU_ORDER.index(au)].tolist()


def _missing(rng: np.random.Generator, shape: tuple[int, ...], share: float) -> NDArray[np.bool_]:
    """Stretches of frames (T A) in which a coder could not see an AU."""
    frames, aus = shape
    unknown = np.zeros(shape, bool)
    length = max(2, frames // 20)
    for au in np.flatnonzero(rng.random(aus) < share * frames / length):
        start = int(rng.integers(0, frames - length + 1))
        unknown[start : start + length, au] = True
    return unknown


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


LAB_CORPORA: Mapping[str, LabCorpus] = MappingProxyType(
    {
        "bp4d": LabCorpus(25.0, BP4D_PARTS, BP4D_PREVALENCE, _bp4d_recordings, _write_bp4d),
        "disfa": LabCorpus(20.0, DISFA_PARTS, DISFA.prevalence, _disfa_recordings, _write_disfa),
        "affwild2_va": LabCorpus(25.0, affect.PARTS, {}, _videos, affect.write_challenge),
        "affwild2_mtl": LabCorpus(25.0, affect.PARTS, {}, _videos, affect.write_multi_task, affect.join_lists),
        "afewva": LabCorpus(25.0, affect.PARTS, {}, _clips, affect.write_afewva),
    }
)
"""The lab corpora that can be written, by name."""
