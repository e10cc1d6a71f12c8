"""Still images of open corpora: one record each, looked at once so that what is no face image is said, and images that
are there twice are found.

Copies share a subject, so that no split parts them; the owners of these corpora name none. Knows no corpus.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ssm_platform.base import may_return
from ssm_platform.corpora.base import Report
from ssm_platform.media import UnreadableVideo, decode_image, load_image
from ssm_platform.records import Record

Duplicates = Literal["drop", "keep"]

LEAST_SIDE = 8
"""Pixels; a smaller image shows no face."""


@dataclass(frozen=True)
class Seen:
    """One usable image: its record, where it was named, and a digest of its pixels."""

    record: Record
    path: Path
    line: int | None
    digest: str


def digest_of(image: NDArray[np.uint8]) -> str:
    """Of an image's pixels and shape."""
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()[:16]


def look(image: Path, path: Path, line: int | None, report: Report) -> str | None:
    """The digest of an image file that can be read and is large enough; None, and reported, for others."""
    try:
        pixels = decode_image(load_image(image), str(image))
    except UnreadableVideo as error:
        if may_return(error):
            raise
        report.problem(path, line, f"{image.name}: {error.reason}", "a listed image is there and can be read")
        return None
    height, width = pixels.shape[:2]
    if min(height, width) < LEAST_SIDE:
        rule = f"an image is at least {LEAST_SIDE} pixels wide and high"
        report.problem(path, line, f"{image.name}: {width} x {height}", rule)
        return None
    return digest_of(pixels)


def distinct(seen: Iterable[Seen], parts: Sequence[str], duplicates: Duplicates, report: Report) -> Iterator[Record]:
    """The records; of images that are in several of `parts` the copies in the earlier parts are dropped, or kept and
    so reported as leaks.

    `parts` are in the order of training, validation, test: a test side stays what its owner made it.
    """
    images, rank = list(seen), {part: place for place, part in enumerate(parts)}
    copies = Counter(one.digest for one in images)
    last: dict[str, int] = {}
    for one in images:
        last[one.digest] = max(last.get(one.digest, 0), rank[one.record.part or parts[0]])
    _tell(images, copies, report)
    for one in images:
        shared = copies[one.digest] > 1
        if shared and duplicates == "drop" and rank[one.record.part or parts[0]] < last[one.digest]:
            continue
        yield replace(one.record, subject=f"image {one.digest}") if shared else one.record


def _tell(images: Sequence[Seen], copies: Counter[str], report: Report) -> None:
    """One note per set of parts that share images, and one for images that carry two classes."""
    groups: dict[str, list[Seen]] = {}
    for one in images:
        if copies[one.digest] > 1:
            groups.setdefault(one.digest, []).append(one)
    shared: dict[tuple[str, ...], list[Seen]] = {}
    for members in groups.values():
        shared.setdefault(tuple(sorted({one.record.part or "" for one in members})), []).append(members[0])
    for among, firsts in shared.items():
        value = f"{len(firsts)} in {' and '.join(among)}, first {firsts[0].record.clip}"
        report.note(firsts[0].path, firsts[0].line, value, "an image is there once", len(firsts))
    torn = [members for members in groups.values() if len({one.record.expression for one in members}) > 1]
    if torn:
        first = torn[0][0]
        value = ", ".join(f"{one.record.clip} {one.record.expression}" for one in torn[0])
        report.note(first.path, first.line, value, "copies of an image have one class; each keeps its own", len(torn))
