"""Which records of a corpus are trained on, which choose the model, and which are only tested on.

Protocol `clean`: the test set is the owner's parts (or a share of the subjects drawn by hash), validation is held
out of the rest, and no subject (no clip, where nobody names subjects) is on two sides. `published`: the test set is
the validation set, as the released code does it. `lodo`: a corpus with role `test` is test only, every other one
has no test set of its own. A pure function of (manifest, corpus config, protocol, seed); the draws are hashes of
names, so adding a subject moves no other. Legend: N records.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ssm_platform.clip_names import sequence_of
from ssm_platform.config import CorpusConfig, Protocol
from ssm_platform.records import Manifest

Mask = npt.NDArray[np.bool_]


class SplitError(ValueError):
    """A split that would be dishonest or empty; names corpus, setting and rule."""


@dataclass(frozen=True)
class Split:
    """One corpus in three manifests; `validation` and `test` are the same under protocol `published`."""

    train: Manifest
    validation: Manifest
    test: Manifest


def split(manifest: Manifest, corpus: CorpusConfig, protocol: Protocol, seed: int) -> Split:
    """The three sides of `manifest`. Raises `SplitError` for an unknown part or for a subject on two sides."""
    everything = np.ones(len(manifest), bool)
    if corpus.role == "test":
        return Split(manifest.filter(~everything), manifest.filter(~everything), manifest)
    groups = _groups(manifest)
    test = ~everything if protocol == "lodo" else _side(manifest, corpus, groups, everything, "test", seed)
    validation = test if protocol == "published" else _side(manifest, corpus, groups, ~test, "validation", seed)
    train = ~test & ~validation
    if not corpus.options.get("allow_leaks"):
        _refuse_shared(corpus.name, groups, {"train": train, "validation": validation, "test": test}, protocol)
    return Split(*(manifest.filter(side) for side in (train, validation, test)))


def _side(manifest: Manifest, corpus: CorpusConfig, groups: list[str], among: Mask, side: str, seed: int) -> Mask:
    parts = corpus.test_parts if side == "test" else corpus.validation_parts
    if parts:
        return _in_parts(manifest, corpus.name, parts, side) & among
    return _drawn(manifest, groups, among, corpus.holdout, f"{seed}/{corpus.name}/{side}")


def _in_parts(manifest: Manifest, name: str, parts: tuple[str, ...], side: str) -> Mask:
    codes, known = manifest.codes("part")
    for part in parts:
        if part not in known:
            raise SplitError(
                f"corpus {name!r}: {side}_parts names part {part!r}, but the corpus has parts "
                f"{', '.join(sorted(known)) or '(none)'}"
            )
    return np.isin(codes, [known.index(part) for part in parts])


def _groups(manifest: Manifest) -> list[str]:
    """What must not be divided: the subject of each record, or its sequence where no subject is known (N)."""
    subjects = manifest.column("subject").to_pylist()
    clips = manifest.column("clip").to_pylist()
    return [
        f"subject {subject}" if subject else f"clip {sequence_of(clip)}"
        for subject, clip in zip(subjects, clips, strict=True)
    ]


def _drawn(manifest: Manifest, groups: list[str], among: Mask, share: float, salt: str) -> Mask:
    """The first `share` of the groups by hash, class by class where groups are single clips of an expression corpus."""
    strata: dict[int, set[str]] = {}
    columns = manifest.expression_columns
    for index in np.flatnonzero(among):
        by_class = manifest.task == "fe" and groups[index].startswith("clip ")
        strata.setdefault(int(columns[index]) if by_class else -1, set()).add(groups[index])
    chosen: set[str] = set()
    for members in strata.values():
        ranked = sorted(members, key=lambda group: hashlib.sha256(f"{salt}/{group}".encode()).digest())
        chosen.update(ranked[: math.ceil(share * len(ranked)) if len(ranked) > 1 else 0])
    mask: Mask = among & np.array([group in chosen for group in groups], bool)
    return mask


def _refuse_shared(name: str, groups: list[str], sides: dict[str, Mask], protocol: Protocol) -> None:
    members = {side: {groups[index] for index in np.flatnonzero(mask)} for side, mask in sides.items()}
    pairs = [("train", "validation"), ("train", "test"), ("validation", "test")]
    for one, other in pairs if protocol != "published" else pairs[:2]:
        if shared := sorted(members[one] & members[other]):
            raise SplitError(
                f"corpus {name!r}: {one} and {other} share {len(shared)} subjects or clips "
                f"({', '.join(shared[:3])}, ...); "
                f"change test_parts or validation_parts: no subject may be on two sides"
            )
