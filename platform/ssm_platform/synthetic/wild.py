"""Wild FE corpora in their owners' grammars: DFEW, FERV39K and MAFW. Short clips of many people, one label a clip.

A clip's AUs are drawn from its expression's prototype, with a second expression mixed into some; the written label is
wrong now and then. A `WildJob` writes a run of clips and depends on nothing but its fields. Letters: T frames, C clips.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from ssm.labels import EXPRESSIONS, NEUTRAL
from ssm_platform.corpora.readers.expressions.dfew import CLASSES as DFEW_CLASSES
from ssm_platform.corpora.readers.expressions.dfew import CORPUS as DFEW
from ssm_platform.corpora.readers.expressions.ferv39k import CLASSES as FERV39K_CLASSES
from ssm_platform.synthetic.behaviour import BLENDED, ELSEWHERE, blend_partners, prototypes
from ssm_platform.synthetic.dynamics import Intensity, clip_course, talking
from ssm_platform.synthetic.face.muscles import AU_ORDER
from ssm_platform.synthetic.media import write_images, write_video
from ssm_platform.synthetic.performance import person, stream, wild_performance
from ssm_platform.synthetic.spec import SyntheticSpec, WildSpec
from ssm_platform.synthetic.truth import ClipTruth, write_clips

RATE = 25.0
FOLDS = 5
_CLIPS_PER_JOB = 25
_TALKING = 0.25  # share of clips in which somebody speaks
_SCENES = ("Action", "Conflict", "DailyLife", "School")
_SPOKEN = MappingProxyType({expression: word for word, expression in FERV39K_CLASSES.items()})


@dataclass(frozen=True)
class Clip:
    """One clip of the plan: number from 1, whose face, true and written expression, fold in which it is test."""

    number: int
    who: int
    expression: str
    labelled: str
    fold: int


@dataclass(frozen=True)
class WildCorpus:
    """A row of the table of wild corpora. `place(clip, video)` is (record name, path of its video or folder)."""

    expressions: tuple[str, ...]
    counts: Mapping[str, int]
    place: Callable[[Clip, bool], tuple[str, str]]
    lists: Callable[[Path, list[Clip]], None]


@dataclass(frozen=True)
class WildJob:
    """Writes the clips `first` to `first + count` (places in the plan) of a wild corpus below `root`."""

    corpus: str
    first: int
    count: int
    spec: SyntheticSpec
    seed: int

    @property
    def name(self) -> str:
        """Unique among the corpus's jobs."""
        return f"clips_{self.first + 1:05d}"

    def run(self, root: Path) -> None:
        """Frames and truth of each clip; running it again writes the same files."""
        plan = wild_plan(self.corpus, self.spec.wild, self.seed)[self.first : self.first + self.count]
        truths = [self._write(root, clip) for clip in plan]
        write_clips(root / "truth" / "parts" / f"{self.name}.npz", truths)

    def _write(self, root: Path, clip: Clip) -> ClipTruth:
        row, wild = WILD_CORPORA[self.corpus], self.spec.wild
        rng = stream(self.seed, self.corpus, "clip", clip.number)
        frames = int(rng.integers(wild.shortest, wild.longest + 1))
        drawn, peaks = draw_peaks(rng, clip.expression, row.expressions, wild)
        intensity = _course(rng, frames, peaks)
        face = person(self.seed, self.corpus, clip.who)
        played = wild_performance(face, rng, intensity, RATE, wild.nuisance, self.spec.size)
        name, place = row.place(clip, wild.storage == "video")
        if wild.storage == "video":
            write_video(root / place, played.frames(), self.spec.size, RATE)
        else:
            write_images(root / place, (f"{number}.jpg" for number in range(1, frames + 1)), played.frames())
        return ClipTruth(name, intensity, clip.expression, clip.labelled, drawn)


def wild_jobs(corpus: str, spec: SyntheticSpec, seed: int) -> list[WildJob]:
    """Jobs of a few clips each."""
    starts = range(0, spec.wild.clips, _CLIPS_PER_JOB)
    return [WildJob(corpus, first, min(_CLIPS_PER_JOB, spec.wild.clips - first), spec, seed) for first in starts]


def wild_plan(corpus: str, wild: WildSpec, seed: int) -> list[Clip]:
    """All clips: every class by its quota, people and folds mixed over classes; a person is in one fold only."""
    row, rng = WILD_CORPORA[corpus], stream(seed, corpus, "plan")
    names = np.array(row.expressions)
    share = np.array([row.counts[name] for name in names], float) ** wild.imbalance
    quota = np.maximum(1, np.floor(np.cumsum(share / share.sum()) * wild.clips + 0.5).astype(int))
    true = rng.permutation(np.searchsorted(quota, np.arange(wild.clips), side="right"))
    wrong = (true + rng.integers(1, len(names), wild.clips)) % len(names)
    seen = np.where(rng.random(wild.clips) < wild.label_noise, wrong, true)
    who = rng.permutation(np.arange(wild.clips) % wild.people)
    return [
        Clip(
            number + 1,
            int(who[number]),
            str(names[true[number]]),
            str(names[seen[number]]),
            int(who[number]) % FOLDS + 1,
        )
        for number in range(wild.clips)
    ]


def draw_peaks(
    rng: np.random.Generator, expression: str, expressions: tuple[str, ...], wild: WildSpec
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which AUs a clip shows (A) and how strong each gets (A, 0-5)."""
    row = expressions.index(expression)
    table = prototypes(expressions)
    own = rng.random(len(AU_ORDER)) < table[row]
    second = rng.choice(len(expressions), p=blend_partners(expressions)[row])
    mixed = (
        (rng.random(len(AU_ORDER)) < table[second] * BLENDED) & (rng.random() < wild.blend) & (expression != NEUTRAL)
    )
    vigour = wild.strength * rng.uniform(0.55, 1.0)
    clear = own & (table[row] > ELSEWHERE)
    peaks = np.where(clear, rng.uniform(2.0, 5.0, len(own)), rng.uniform(1.6, 3.2, len(own))) * vigour
    faint = rng.uniform(0, 0.9, len(own)) * (rng.random(len(own)) < 0.4)
    drawn = own | mixed
    return drawn, np.where(drawn, np.maximum(peaks, 1.5), faint)


def _course(rng: np.random.Generator, frames: int, peaks: NDArray[np.float64]) -> Intensity:
    shown = clip_course(rng, frames, RATE, peaks)
    return np.maximum(shown, talking(rng, frames, RATE)) if rng.random() < _TALKING else shown


def _dfew_place(clip: Clip, video: bool) -> tuple[str, str]:
    name = f"{clip.number:05d}"
    return name, f"Clip/original/{clip.number}.mp4" if video else f"Clip/clip_224x224/{name}"


def _dfew_lists(root: Path, plan: list[Clip]) -> None:
    labels = {expression: number for number, expression in DFEW_CLASSES.items()}
    for fold in range(1, FOLDS + 1):
        for side, clips in _sides(plan, fold):
            line = '"{}","{}"' if fold % 2 else "{},{}"  # some copies went through a spreadsheet
            rows = (line.format(clip.number, labels[clip.labelled]) for clip in clips)
            lines = ["video_name,label", *rows]
            _write_lines(root / f"EmoLabel_DataSplit/{side}(single-labeled)/set_{fold}.csv", lines)


def _mafw_place(clip: Clip, video: bool) -> tuple[str, str]:
    name = f"{clip.number:05d}"
    return name, f"data/clips/{name}.mp4" if video else f"data/frames/{name}"


def _mafw_lists(root: Path, plan: list[Clip]) -> None:
    for fold in range(1, FOLDS + 1):
        for side, clips in _sides(plan, fold):
            gap = "\t" if fold % 2 else " "
            lines = [f"{clip.number:05d}.mp4{gap}{clip.labelled}" for clip in clips]
            _write_lines(root / f"Train & Test Set/single/no_caption/set_{fold}/{side}.txt", lines)


def _ferv39k_place(clip: Clip, video: bool) -> tuple[str, str]:
    if video:
        raise ValueError("FERV39K is delivered as frame folders: wild.storage must be 'frames'")
    name = f"{_SCENES[clip.number % len(_SCENES)]}/{_SPOKEN[clip.labelled]}/{clip.number:04d}"
    return name, f"2_ClipsforFaceCrop/{name}"


def _ferv39k_lists(root: Path, plan: list[Clip]) -> None:
    for side, clips in _sides(plan, fold=1):
        lines = [f"{_ferv39k_place(clip, video=False)[0]} {_SPOKEN[clip.labelled]}" for clip in clips]
        _write_lines(root / f"4_setups/All_scenes/{side}_All.csv", lines)


def _sides(plan: list[Clip], fold: int) -> tuple[tuple[str, list[Clip]], tuple[str, list[Clip]]]:
    return ("train", [clip for clip in plan if clip.fold != fold]), (
        "test",
        [clip for clip in plan if clip.fold == fold],
    )


def _write_lines(path: Path, lines: Iterable[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def _alike(names: Iterable[str]) -> Mapping[str, int]:
    return MappingProxyType(dict.fromkeys(names, 1))


_SEVEN = tuple(_SPOKEN)

WILD_CORPORA: Mapping[str, WildCorpus] = MappingProxyType(
    {
        "dfew": WildCorpus(tuple(DFEW_CLASSES.values()), DFEW.counts, _dfew_place, _dfew_lists),
        "ferv39k": WildCorpus(_SEVEN, _alike(_SEVEN), _ferv39k_place, _ferv39k_lists),
        "mafw": WildCorpus(EXPRESSIONS, _alike(EXPRESSIONS), _mafw_place, _mafw_lists),
    }
)
"""The wild corpora that can be written, by name."""
