"""Do the intervals cover? Simulated test sides with few people, and how often each 95 % interval holds the truth.

    python bench/coverage.py [--draws 2000] [--subjects 3 5 9 14 27 40]

People differ: each shows each AU as often as a random effect on the logit of BP4D's base rates says (SD 0.9, and 0.5
shared by all AUs of a person), is as easy to read as a random effect on the distance of the scores (SD 0.25 of its
logarithm) and biased as another says (SD 0.45), over 15 to 120 independent moments. Expression clips follow DFEW's
class shares, drawn anew for every person from a Dirichlet of concentration 8. A second system is a little worse on the
same people and shares 0.6 to 0.7 of its effects and noise with the first; with three seeds each system is trained anew
(SD 4 % of the distance). The truth of a figure is its value on counts of many thousand people. The figures and their
intervals are `ssm.metrics`, as every report has them; beside them stands the percentile bootstrap they replaced.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from ssm.metrics.figures import f1_score, macro, recall, unweighted_recall
from ssm.metrics.intervals import Estimate, Measure, difference_interval, seeds_difference, share_interval
from ssm.metrics.ranking import ranked_area

PREVALENCE = np.array([0.21, 0.17, 0.20, 0.46, 0.55, 0.59, 0.56, 0.47, 0.17, 0.34, 0.17, 0.05])
DISTANCE = np.array([1.6, 1.5, 1.7, 2.0, 1.5, 1.8, 2.4, 1.2, 1.3, 1.4, 1.2, 1.5])  # of mean scores, active or not
CLASSES = np.array([0.21, 0.17, 0.23, 0.19, 0.12, 0.02, 0.06])
SKILL = np.array([2.2, 1.2, 1.3, 1.5, 1.2, 0.8, 0.8])
THRESHOLD, MOMENTS, CLIPS, BINS, SEEDS = 1.0, 120, 60, 64, 3
COMMON, RARE = 0, 11  # AUs whose own figures are shown: 21 % and 5 % of frames; classes: 21 % and 6 %

Counts = NDArray[np.int64]
Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Side:
    """A simulated test side: counts by subject (S) and system (2)."""

    hits: Counts  # S 2 1+K A 3: the run at hand, then K trained anew
    ranks: Counts  # S A 2 BINS, of the first system's run at hand
    confusion: Counts  # S 2 E E


def draw(generator: np.random.Generator, subjects: int) -> Side:
    """One test side."""
    return Side(*_aus(generator, subjects), _expressions(generator, subjects))


def _aus(generator: np.random.Generator, subjects: int) -> tuple[Counts, Counts]:
    shape = (subjects, len(PREVALENCE))
    normal = generator.standard_normal
    rate = expit(logit(PREVALENCE) + 0.5 * normal((subjects, 1)) + 0.9 * normal(shape))
    distance, bias = DISTANCE * np.exp(0.25 * normal(shape)), 0.45 * normal(shape)
    moments = np.clip(np.exp(np.log(60) + 0.35 * normal(subjects)), 15, MOMENTS).astype(int)
    seen = np.arange(MOMENTS)[:, None] < moments[:, None, None]
    active = generator.random((subjects, MOMENTS, len(PREVALENCE))) < rate[:, None]
    noise = generator.standard_normal(active.shape, np.float32)
    hits = np.zeros((subjects, 2, 1 + SEEDS, len(PREVALENCE), 3), np.int64)
    first = None
    for system, seed in np.ndindex(2, 1 + SEEDS):
        own = 0.7 * bias + 0.714 * 0.45 * normal(shape) if system or seed else bias
        quality = (0.93 if system else 1.0) * (np.exp(0.04 * normal()) if seed else 1.0)
        mixed = 0.6 * noise + 0.8 * generator.standard_normal(active.shape, np.float32) if system or seed else noise
        scores = (quality * distance)[:, None] * active + own[:, None] + mixed
        said = scores > THRESHOLD
        outcomes = (said & active & seen, said & ~active & seen, ~said & active & seen)
        hits[:, system, seed] = np.stack([outcome.sum(1) for outcome in outcomes], -1)
        first = scores if first is None else first
    assert first is not None
    return hits, _ranks(first, active, np.broadcast_to(seen, active.shape))


def _ranks(scores: Floats, active: NDArray[np.bool_], seen: NDArray[np.bool_]) -> Counts:
    places = np.searchsorted(np.linspace(-2.5, 5, BINS - 1), scores)
    subjects, _, aus = scores.shape
    cell = np.arange(subjects)[:, None, None] * aus + np.arange(aus)
    flat = (cell * 2 + active) * BINS + places
    return np.bincount(flat[seen], minlength=subjects * aus * 2 * BINS).reshape(subjects, aus, 2, BINS)


def _expressions(generator: np.random.Generator, subjects: int) -> Counts:
    normal, classes = generator.standard_normal, len(CLASSES)
    preference = generator.dirichlet(8 * CLASSES, subjects)
    seen = np.arange(CLIPS) < np.clip(generator.poisson(30, subjects), 5, CLIPS)[:, None]
    draws = generator.random((subjects, CLIPS, 1))
    true = (draws > preference.cumsum(1)[:, None]).sum(2).clip(0, classes - 1)
    skill = SKILL * np.exp(0.3 * normal((subjects, 1)) + 0.2 * normal((subjects, classes)))
    bias, noise = 0.4 * normal((subjects, classes)), normal((subjects, CLIPS, classes))
    found = np.zeros((subjects, 2, classes, classes), np.int64)
    for system in range(2):
        if system:
            bias, noise = 0.7 * bias + 0.714 * 0.4 * normal(bias.shape), 0.6 * noise + 0.8 * normal(noise.shape)
        scores = np.eye(classes)[true] * ((0.9 if system else 1.0) * skill)[:, None] + bias[:, None] + noise
        cell = (np.arange(subjects)[:, None] * classes + true) * classes + scores.argmax(2)
        counts = np.bincount(cell[seen], minlength=subjects * classes**2)
        found[:, system] = counts.reshape(subjects, classes, classes)
    return found


def _macro_f1(hits: NDArray[Any]) -> Any:
    return macro(f1_score(hits))


def recall_of_hits(hits: NDArray[Any]) -> Floats:
    """(... A 3) -> recall (... A)."""
    true, missed = hits[..., 0].astype(float), hits[..., 2].astype(float)
    return np.divide(true, true + missed, out=np.full(true.shape, np.nan), where=true + missed > 0)


@dataclass(frozen=True)
class Figure:
    """A figure of a test side: how it and its interval come from the side."""

    interval: Callable[[Side], Estimate]
    counts: Callable[[Side], Counts]  # S ...
    measure: Measure  # of summed counts


def _share(counts: Callable[[Side], Counts], measure: Measure) -> Figure:
    return Figure(lambda side: share_interval(counts(side), measure), counts, measure)


def _paired(pair: Callable[[Side], Counts], measure: Measure) -> Figure:
    """`pair` gives S 2 ...counts."""
    return Figure(
        lambda side: difference_interval(pair(side)[:, 0], pair(side)[:, 1], measure),
        pair,
        lambda total: measure(total[:, 0]) - measure(total[:, 1]),
    )


def _seeded(pair: Callable[[Side], Counts], measure: Measure) -> Figure:
    """`pair` gives S 2 K ...counts."""
    return Figure(
        lambda side: seeds_difference(pair(side)[:, 0], pair(side)[:, 1], measure),
        pair,
        lambda total: (measure(total[:, 0]) - measure(total[:, 1])).mean(1),
    )


FIGURES: dict[str, Figure] = {
    "macro F1": _share(lambda side: side.hits[:, 0, 0], _macro_f1),
    "F1, AU on 21 %": _share(lambda side: side.hits[:, 0, 0, COMMON], f1_score),
    "F1, AU on 5 %": _share(lambda side: side.hits[:, 0, 0, RARE], f1_score),
    "recall, AU on 21 %": _share(lambda side: side.hits[:, 0, 0, COMMON], recall_of_hits),
    "recall, AU on 5 %": _share(lambda side: side.hits[:, 0, 0, RARE], recall_of_hits),
    "AUC, AU on 21 %": _share(lambda side: side.ranks[:, COMMON], ranked_area),
    "AUC, AU on 5 %": _share(lambda side: side.ranks[:, RARE], ranked_area),
    "mean AUC": _share(lambda side: side.ranks, lambda ranks: macro(ranked_area(ranks))),
    "UAR": _share(lambda side: side.confusion[:, 0], unweighted_recall),
    "recall, class of 21 %": _share(lambda side: side.confusion[:, 0], lambda total: recall(total)[..., 0]),
    "recall, class of 6 %": _share(lambda side: side.confusion[:, 0], lambda total: recall(total)[..., 6]),
    "difference of macro F1": _paired(lambda side: side.hits[:, :, 0], _macro_f1),
    "difference of UAR": _paired(lambda side: side.confusion, unweighted_recall),
    "difference of macro F1, 3 seeds": _seeded(lambda side: side.hits[:, :, 1:], _macro_f1),
}


def truths(people: int = 400, sides: int = 150) -> dict[str, float]:
    """Each figure of counts summed over `sides` test sides of `people`: seeds differ between sides."""
    generator = np.random.default_rng(0)
    totals: dict[str, Any] = dict.fromkeys(FIGURES, 0)
    for _ in range(sides):
        side = draw(generator, people)
        for name, figure in FIGURES.items():
            totals[name] = totals[name] + figure.counts(side).sum(0)
    return {name: float(figure.measure(totals[name][None])[0]) for name, figure in FIGURES.items()}


def percentile(
    figure: Figure, side: Side, generator: np.random.Generator, replicates: int = 400
) -> tuple[float, float]:
    """The plain bootstrap over subjects."""
    counts = figure.counts(side)
    drawn = generator.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=replicates)
    totals = (drawn @ counts.reshape(len(counts), -1)).reshape(-1, *counts.shape[1:])
    found = figure.measure(totals)
    if np.isnan(found).all():
        return math.nan, math.nan
    low, high = np.nanquantile(found, (0.025, 0.975))
    return float(low), float(high)


@dataclass(frozen=True)
class Coverage:
    """How often an interval held the truth where there was one; how wide it was; how often there was none."""

    covered: float
    width: float
    undefined: float

    @classmethod
    def of(cls, intervals: Sequence[tuple[float, float]], truth: float) -> Coverage:
        low, high = np.array(intervals).T
        known = ~np.isnan(low)
        held = (low[known] <= truth) & (truth <= high[known])
        return cls(float(held.mean()), float((high - low)[known].mean()), float(1 - known.mean()))


def simulate(subjects: int, draws: int, true: dict[str, float]) -> Iterator[tuple[str, Coverage, Coverage]]:
    """For each figure: coverage of our interval, and of the percentile bootstrap."""
    generator = np.random.default_rng(subjects)
    ours: dict[str, list[tuple[float, float]]] = {name: [] for name in FIGURES}
    plain: dict[str, list[tuple[float, float]]] = {name: [] for name in FIGURES}
    for number in range(draws):
        side = draw(generator, subjects)
        for name, figure in FIGURES.items():
            found = figure.interval(side)
            ours[name].append((float(np.squeeze(found.low)), float(np.squeeze(found.high))))
            if number < draws // 4:
                plain[name].append(percentile(figure, side, generator))
    for name in FIGURES:
        yield name, Coverage.of(ours[name], true[name]), Coverage.of(plain[name], true[name])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2000, help="simulated test sides of each size")
    parser.add_argument("--subjects", nargs="+", type=int, default=[3, 5, 9, 14, 27, 40])
    options = parser.parse_args()
    true = truths()
    sizes = options.subjects
    found: dict[int, dict[str, str]] = {}
    for size in sizes:
        found[size] = {name: _cell(*both) for name, *both in simulate(size, options.draws, true)}
        print(f"{size} subjects: {found[size]}", file=sys.stderr, flush=True)
    print(f"| figure | truth | {' | '.join(f'{size} subjects' for size in sizes)} |\n|---|---|{'---|' * len(sizes)}")
    for name in FIGURES:
        print(f"| {name} | {true[name]:.3f} | {' | '.join(found[size][name] for size in sizes)} |")


def _cell(ours: Coverage, plain: Coverage) -> str:
    """Coverage in per cent, mean width; the percentile bootstrap's coverage in brackets."""
    none = f", {ours.undefined:.0%} none" if ours.undefined >= 0.005 else ""
    return f"{100 * ours.covered:.1f}, {ours.width:.2f} ({100 * plain.covered:.0f}){none}"


if __name__ == "__main__":
    main()
