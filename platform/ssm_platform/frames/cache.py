"""Features of a manifest's frames, cached beside the shards: float16, written once, whole or not at all.

Below `features/<encoder>-<manifest>/` of a storage lie parts of some records each, `00000.npy` (frames, D + K), and
`done.json` once all of them are there. Encoding again goes on where it ended. Legend: F frames, D width, K scores.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ssm.interface import center
from ssm_platform.base import Storage, open_storage
from ssm_platform.frames.encoders import Encoder
from ssm_platform.media import open_frames
from ssm_platform.records import Manifest

_FRAMES = 2048  # of a part, about: what one task encodes
DONE = "done.json"


class Part(NamedTuple):
    """Records `first..last-1` of the manifest."""

    number: int
    first: int
    last: int


@dataclass(frozen=True)
class Features:
    """Of all frames of a manifest, record after record."""

    features: NDArray[np.float16]  # F D
    scores: NDArray[np.float16] | None  # F K
    classes: tuple[str, ...]


def place_of(storage: Storage, encoder: str, manifest: Manifest) -> str:
    """The folder of a manifest's features in a storage."""
    return f"{storage.uri}/features/{encoder}-{manifest.fingerprint[:16]}"


def parts_of(manifest: Manifest) -> list[Part]:
    """Records in their order, a new part after every few thousand frames; a record is never split."""
    parts, first, frames = list[Part](), 0, 0
    for index, length in enumerate(manifest.lengths.tolist()):
        frames += length
        if frames >= _FRAMES or index == len(manifest) - 1:
            parts.append(Part(len(parts), first, index + 1))
            first, frames = index + 1, 0
    return parts


def missing(place: str, manifest: Manifest) -> list[Part]:
    """Parts that are not written yet."""
    there = set(open_storage(place).list(""))
    return [part for part in parts_of(manifest) if _name(part) not in there]


def encode_part(manifest: Manifest, place: str, part: Part, encoder: Encoder, batch: int) -> int:
    """Encodes and writes a part; how many frames it has."""
    rows = [np.concatenate(list(_encoded(manifest, index, encoder, batch))) for index in range(part.first, part.last)]
    table = np.concatenate(rows)
    sink = io.BytesIO()
    np.save(sink, table)
    open_storage(place).write(_name(part), sink.getvalue())
    return len(table)


def finish(place: str, manifest: Manifest, encoder: Encoder) -> None:
    """Says that all parts are there, and what they hold."""
    about = {"width": encoder.width, "classes": list(encoder.classes), "frames": int(manifest.lengths.sum())}
    open_storage(place).write(DONE, json.dumps(about).encode())


def is_done(place: str) -> bool:
    """Whether all features are there."""
    return open_storage(place).exists(DONE)


def read_features(place: str, manifest: Manifest) -> Features:
    """Features of all frames; ValueError where they are not whole."""
    storage = open_storage(place)
    about: dict[str, Any] = json.loads(storage.read(DONE))
    table = np.concatenate([np.load(io.BytesIO(storage.read(_name(part)))) for part in parts_of(manifest)])
    if len(table) != manifest.lengths.sum():
        want = int(manifest.lengths.sum())
        raise ValueError(f"{place}: features of {len(table)} frames, the corpus has {want}: delete the folder")
    width, classes = int(about["width"]), tuple(about["classes"])
    return Features(table[:, :width], table[:, width:] if classes else None, classes)


def spans(lengths: Iterable[int]) -> Iterator[slice]:
    """The frames of each record."""
    start = 0
    for length in lengths:
        yield slice(start, start + length)
        start += length


def _encoded(manifest: Manifest, index: int, encoder: Encoder, batch: int) -> Iterator[NDArray[np.float16]]:
    """A record's rows (n, D + K), some frames at a time."""
    source = open_frames(manifest[index], manifest.root)
    try:
        for first in range(0, source.length, batch):
            frames = source.read(range(first, min(first + batch, source.length)))
            found = encoder(center(frames, encoder.preprocessing))
            both = [found.features, *([] if found.scores is None else [found.scores])]
            yield np.concatenate(both, axis=1).astype(np.float16)
    finally:
        source.close()


def _name(part: Part) -> str:
    return f"{part.number:05d}.npy"
