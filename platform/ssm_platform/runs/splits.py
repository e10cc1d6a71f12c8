"""Which records of a corpus are trained on, which choose the model, and which are only tested on.

Protocol `clean`: the test set is the owner's parts (or a share of the groups drawn by hash), validation is held out of
the rest, and no group is on two sides: a person, or a video or clip of nobody known (`records.groups_of`). `published`:
the test set is the validation set, as the released code does it. `lodo`: a corpus with role `test` is test only, every
other one has no test set of its own. Corpora that show the same people (two cameras, a list made of a corpus) put each
of them on the same side. A pure function of (manifests, corpus configs, protocol, seed); the draws are hashes of names,
so adding a subject moves no other. Legend: N records.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ssm_platform.records import Manifest, groups_of
from ssm_platform.runs.config import CorpusConfig, Protocol

Mask = npt.NDArray[np.bool_]


class SplitError(ValueError):
    """A split that would be dishonest or empty; names corpus, setting and rule."""


@dataclass(frozen=True)
class Split:
    """One corpus in three manifests; `validation` and `test` are the same under protocol `published`."""

    train: Manifest
    validation: Manifest
    test: Manifest


@dataclass(frozen=True)
class Source:
    """A corpus as it was read."""

    manifest: Manifest
    corpus: CorpusConfig
    reader: str  # of the owner's files; of a ready manifest: by which it was made


_SAME_PEOPLE = (
    frozenset({"bp4d", "list_bp4d"}),
    frozenset({"disfa", "disfaplus", "list_disfa"}),
    frozenset({"affwild2_au", "affwild2_expr", "affwild2_va", "affwild2_mtl"}),
)
"""Readers that name the same people, or the same videos of them, alike. (BP4D+ has others under the names of BP4D.)"""

_ANYBODYS = ("manifest", "list_fe")
"""Readers of files that anybody may have made: equal names in two of them mean nothing."""


def split_all(sources: Sequence[Source], protocol: Protocol, seed: int) -> dict[str, Split]:
    """The three sides of every corpus by name, in the order given.

    Raises `SplitError` as `split` does, and for somebody who is trained on in one corpus and held out in another.
    """
    found: dict[str, Split] = {}
    for family in _families(sources):
        salt, placed = family[0].corpus.name, dict[str, str]()
        for source in sorted(family, key=_choice):
            found[source.corpus.name] = split(source.manifest, source.corpus, protocol, seed, salt, placed)
            if len(family) > 1:
                _place(source.corpus, found[source.corpus.name], protocol, placed)
    return {source.corpus.name: found[source.corpus.name] for source in sources}


def _families(sources: Sequence[Source]) -> list[list[Source]]:
    """Sources that show the same people, together; each in the order given."""
    families: dict[object, list[Source]] = {}
    for source in sources:
        known: object = next((names for names in _SAME_PEOPLE if source.reader in names), source.reader)
        families.setdefault(("", source.corpus.name) if known in _ANYBODYS else known, []).append(source)
    return list(families.values())


def _choice(source: Source) -> tuple[bool, bool, bool]:
    """How free a corpus is to place its people: those that a role or the owner's parts bind come first."""
    corpus = source.corpus
    return corpus.role != "test", not corpus.test_parts, not corpus.validation_parts


def _place(corpus: CorpusConfig, sides: Split, protocol: Protocol, placed: dict[str, str]) -> None:
    """Notes who is on which side; `SplitError` for somebody who was on another in a corpus before."""
    for side in ("train", "test") if protocol == "published" else ("train", "validation", "test"):
        for group in sorted(groups_of(getattr(sides, side))[1]):
            before = placed.setdefault(group, side)
            if before != side and not corpus.options.get("allow_leaks"):
                raise SplitError(
                    f"corpus {corpus.name!r}: {group} is on the {side} side here, but on the {before} side of another "
                    f"corpus of the same people; change test_parts or validation_parts, or leave one corpus out: "
                    f"no subject may be on two sides"
                )


def split(
    manifest: Manifest,
    corpus: CorpusConfig,
    protocol: Protocol,
    seed: int,
    salt: str | None = None,
    placed: Mapping[str, str] = MappingProxyType({}),
) -> Split:
    """The three sides of `manifest`. Raises `SplitError` for an unknown part or for a subject on two sides.

    Where a hash draws, whoever is `placed` keeps that side; `salt` goes into the hash (None: the corpus's name).
    """
    everything = np.ones(len(manifest), bool)
    if corpus.role == "test":
        return Split(manifest.filter(~everything), manifest.filter(~everything), manifest)
    groups = _Groups(*groups_of(manifest))
    draw = _Draw(manifest, corpus, groups, f"{seed}/{salt or corpus.name}", placed)
    test = ~everything if protocol == "lodo" else draw.side("test", everything)
    validation = test if protocol == "published" else draw.side("validation", ~test)
    train = ~test & ~validation
    if not corpus.options.get("allow_leaks"):
        _refuse_shared(corpus.name, groups, {"train": train, "validation": validation, "test": test}, protocol)
    return Split(*(manifest.filter(side) for side in (train, validation, test)))


@dataclass(frozen=True)
class _Groups:
    """The group of each record, as `groups_of` gives them."""

    codes: npt.NDArray[np.int32]  # N
    names: list[str]

    def where(self, wanted: Callable[[str], bool]) -> Mask:
        """The records (N) of the groups that are wanted."""
        mask: Mask = np.array([wanted(name) for name in self.names], bool)[self.codes]
        return mask

    def among(self, mask: Mask) -> npt.NDArray[np.int32]:
        """The codes of the groups that have a record in `mask`."""
        return np.unique(self.codes[mask])


@dataclass(frozen=True)
class _Draw:
    """Who is held out of one corpus."""

    manifest: Manifest
    corpus: CorpusConfig
    groups: _Groups
    salt: str
    placed: Mapping[str, str]

    def side(self, side: str, among: Mask) -> Mask:
        """The owner's parts where they are named, else those who are placed there and a share of those who are not."""
        parts = self.corpus.test_parts if side == "test" else self.corpus.validation_parts
        if parts:
            return _in_parts(self.manifest, self.corpus.name, parts, side) & among
        there = self.groups.where(lambda group: self.placed.get(group) == side)
        free = self.groups.where(lambda group: group not in self.placed)
        drawn = _drawn(self.manifest, self.groups, among & free, self.corpus.holdout, f"{self.salt}/{side}")
        held: Mask = among & there | drawn
        return held


def _in_parts(manifest: Manifest, name: str, parts: tuple[str, ...], side: str) -> Mask:
    codes, known = manifest.codes("part")
    for part in parts:
        if part not in known:
            raise SplitError(
                f"corpus {name!r}: {side}_parts names part {part!r}, but the corpus has parts "
                f"{', '.join(sorted(known)) or '(none)'}"
            )
    return np.isin(codes, [known.index(part) for part in parts])


def _drawn(manifest: Manifest, groups: _Groups, among: Mask, share: float, salt: str) -> Mask:
    """The first `share` of the groups by hash, class by class where groups are single clips of an expression corpus."""
    strata = np.full(len(manifest), -1)
    if manifest.tasks == ("fe",):
        strata = np.where(groups.where(lambda group: group.startswith("clip ")), manifest.expression_columns, strata)
    chosen = np.zeros(len(groups.names), bool)
    for stratum in np.unique(strata[among]):
        members = groups.among(among & (strata == stratum)).tolist()
        members.sort(key=lambda code: hashlib.sha256(f"{salt}/{groups.names[code]}".encode()).digest())
        chosen[members[: math.ceil(share * len(members)) if len(members) > 1 else 0]] = True
    mask: Mask = among & chosen[groups.codes]
    return mask


def _refuse_shared(name: str, groups: _Groups, sides: dict[str, Mask], protocol: Protocol) -> None:
    members = {side: groups.among(mask) for side, mask in sides.items()}
    pairs = [("train", "validation"), ("train", "test"), ("validation", "test")]
    for one, other in pairs if protocol != "published" else pairs[:2]:
        if shared := sorted(groups.names[code] for code in np.intersect1d(members[one], members[other])):
            raise SplitError(
                f"corpus {name!r}: {one} and {other} share {len(shared)} subjects or clips "
                f"({', '.join(shared[:3])}, ...); "
                f"change test_parts or validation_parts: no subject may be on two sides"
            )
