"""Which face crops the corpora of a run hold, and so which one its model learns from and is served.

A manifest says it by record where ingest wrote it; of owners' files the table of what owners ship says it; drawn
corpora hold faces as close as a crop; of shards of before it was recorded nobody knows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ssm.interface import FaceCrop
from ssm_platform.faces import recorded_crop
from ssm_platform.records import Manifest
from ssm_platform.runs.config import CorpusConfig, RunConfig
from ssm_platform.synthetic import is_drawn

OWNER = FaceCrop(source="owner")


def crops_of(corpus: CorpusConfig, manifest: Manifest) -> Counter[FaceCrop | None]:
    """How many records of a corpus are which crop; None: not recorded."""
    kinds, kind_names = manifest.codes("kind")
    crops, crop_names = manifest.codes("crop")
    found: Counter[FaceCrop | None] = Counter()
    for (kind, crop), count in zip(*np.unique(np.stack([kinds, crops], 1), axis=0, return_counts=True), strict=True):
        recorded = crop_names[crop] if crop >= 0 else None
        what = recorded_crop(kind_names[kind], corpus.reader or corpus.name, recorded)
        whole = what is not None and what.source == "frame"
        if whole and (corpus.crops == "always" or is_drawn(Path(manifest.root))):
            what = OWNER
        found[what] += int(count)
    return found


def learned_crop(config: RunConfig, manifests: Iterable[Manifest]) -> FaceCrop | None:
    """What a model trained on these is served: the detected crop most of its clips are, else its owners', else None."""
    total: Counter[FaceCrop | None] = Counter()
    for manifest in manifests:
        total += crops_of(config.corpus(manifest.corpus), manifest)
    by_number = [crop for crop, _ in total.most_common()]
    detected = next((crop for crop in by_number if crop is not None and crop.source == "detected"), None)
    return detected or (OWNER if by_number == [OWNER] else None)
