"""What smoothing runs over: the frames of one video as they follow each other, those between them filled in.

A stretch is a video (or a subject's sequence), not a record: records of expression corpora are cut where the class
changes, and a box that ended there would know the label. Readers leave frames out, those without a face and those that
nobody labelled; where a manifest tells frames' numbers, by name or by place in the video, `fill` bridges the gap, and
one of more than ten seconds begins another stretch. Legend: F frames of a manifest, N of one stretch, K columns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ssm.interface import box, fill, gaussian
from ssm_platform.records import Manifest, sequence_of

Floats = NDArray[np.float64]
LONGEST_GAP = 250
"""Frames between two of one stretch, at most."""
_NUMBER = re.compile(r"(\d{1,9})\D*$")


@dataclass(frozen=True)
class Stretches:
    """Where each stretch of a manifest's frames ends, and which frames of its video it holds."""

    lengths: tuple[int, ...]  # they sum to F
    numbers: NDArray[np.int64]  # F, ascending within a stretch

    @classmethod
    def of(cls, manifest: Manifest) -> Stretches:
        """Of all frames, record after record."""
        names = ("group", "clip", "kind", "source", "start", "length", "files")
        rows = list(zip(*(manifest.column(name).to_pylist() for name in names), strict=True))
        found = [_numbers(list(members)) for _, members in groupby(rows, key=lambda row: row[0] or sequence_of(row[1]))]
        parts = [part for numbers in found for part in _unbroken(numbers)]
        return cls(tuple(len(part) for part in parts), np.concatenate([np.zeros(0, np.int64), *parts]))

    def smoothed(self, values_FK: NDArray[Any], half_window: int, sigma: float | None = None) -> Floats:
        """Boxes over all frames of a video, absent ones filled in; `sigma`: Gaussian weights over those there are."""
        if sigma is not None:
            return gaussian(values_FK, self.numbers, sigma, half_window, self.lengths)
        return np.concatenate([
            box(whole, half_window)[present] for whole, present in self.filled(values_FK)
        ])  # fmt: skip

    def filled(self, values_FK: NDArray[Any]) -> Iterator[tuple[Floats, NDArray[np.bool_]]]:
        """Each stretch from its first frame to its last (N K), and which of those (N) there are."""
        start = 0
        for length in self.lengths:
            span = slice(start, start + length)
            places = self.numbers[span] - self.numbers[start]
            present = np.zeros(int(places[-1]) + 1, np.bool_)
            present[places] = True
            whole = np.zeros((len(present), values_FK.shape[1]))
            whole[present] = values_FK[span]
            yield fill(whole, present), present
            start += length


def _numbers(rows: list[Any]) -> NDArray[np.int64]:
    """Of one video's frames; 0, 1, ... where its records do not tell, or not in order."""
    told = [_told(*row[2:]) for row in rows]
    if len({row[2:4] for row in rows}) == 1:  # one kind, one source
        known = [one for one in told if one is not None]
        numbers = np.concatenate(known) if len(known) == len(told) else np.zeros(1, np.int64)
        if (np.diff(numbers) > 0).all() and len(numbers) == sum(row[5] for row in rows):
            return numbers
    return np.arange(sum(row[5] for row in rows))


def _told(kind: str, source: str, start: int, length: int, files: list[str] | None) -> NDArray[np.int64] | None:
    if kind == "video":
        return np.arange(start, start + length)
    if kind != "frames" or files is None:
        return None  # a shard's rows follow each other whatever lay between them
    found = [_NUMBER.search(PurePath(name).stem) for name in files]
    return np.array([int(one[1]) for one in found if one], np.int64) if all(found) else None


def _unbroken(numbers: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return np.split(numbers, np.flatnonzero(np.diff(numbers) > LONGEST_GAP) + 1)
