"""Integer hashes that never change: orders, seeds and sample identities rest on them, not on a library's generator."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The splitmix64 finaliser (Steele et al. 2014): a bijection of 64 bits that looks random."""
    with np.errstate(over="ignore"):
        values = values + _GOLDEN
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def text_key(text: str) -> int:
    """A text as a whole number below 2^56."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "big")


UNREAD = 0
"""In place of a sample's number where its pixels could not be read."""


def sample_ids(clip_keys: NDArray[np.int64], starts: NDArray[np.int32]) -> NDArray[np.int64]:
    """One number per sample, from `text_key("corpus/clip")` and the first frame of its window."""
    keys = clip_keys.astype(np.uint64) ^ mix(starts.astype(np.uint64))
    return mix(keys).view(np.int64)
