"""Face crops: whether what the run would train on is what its model will be given."""

from __future__ import annotations

from collections.abc import Mapping

from ssm.interface import FaceCrop
from ssm_platform.runs.config import CorpusConfig, RunConfig
from ssm_platform.runs.crops import crops_of
from ssm_platform.runs.preflight.refusals import Refusal
from ssm_platform.runs.splits import Split


def check_crops(config: RunConfig, splits: Mapping[str, Split]) -> list[Refusal]:
    """Corpora of whole frames, and corpora cut in unlike ways: a model reads one kind of face crop."""
    refusals, cut = list[Refusal](), list[tuple[str, FaceCrop]]()
    for name, split in splits.items():
        corpus = config.corpus(name)
        sides = (side for side in (split.train, split.validation, split.test) if len(side))
        found = [crop for side in sides for crop in crops_of(corpus, side) if crop is not None]
        if any(crop.source == "frame" for crop in found):
            refusals.append(_uncropped(corpus))
        cut += [(name, crop) for crop in found if crop.source == "detected"]
    return refusals + [_unlike(name, crop, *cut[0]) for name, crop in dict.fromkeys(cut) if not crop.alike(cut[0][1])]


def _uncropped(corpus: CorpusConfig) -> Refusal:
    where, place = f"data.corpora.{corpus.name}", corpus.root or corpus.manifest
    source = f"{place} --corpus {corpus.reader or corpus.name}" if corpus.root else place
    use = f"--{where}.root=null --{where}.manifest=SHARDS/manifest.parquet"
    mend = f"python jobs/ingest.py {source} --out SHARDS, then {use}"
    why = "its frames are whole pictures, and a model is given faces: cut them out first"
    return Refusal(where, f"{why} ({mend}); if they are face crops already, set {where}.crops=always")


def _unlike(name: str, crop: FaceCrop, other: str, others: FaceCrop) -> Refusal:
    why = f"holds {crop.words}, {other} {others.words}: one model reads one kind; ingest one of them again"
    return Refusal(f"data.corpora.{name}.manifest", why)
