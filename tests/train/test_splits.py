"""Splits: no subject on two sides, nothing empty in silence, the same answer every time."""

from __future__ import annotations

import numpy as np
import pytest

from ssm.vocabulary import Vocabulary
from ssm_platform.config import CorpusConfig
from ssm_platform.records import Manifest, Record
from ssm_platform.splits import Split, SplitError, split

LABELS = np.zeros((4, 1), np.int8)


def au_manifest(subjects: int = 12, each: int = 3) -> Manifest:
    records = [
        Record(
            f"S{subject:02}_T{task}",
            "x.mp4",
            "video",
            0,
            4,
            subject=f"S{subject:02}",
            part=f"P{subject % 3 + 1}",
            au_labels=LABELS,
        )
        for subject in range(subjects)
        for task in range(each)
    ]
    return Manifest.build("/x", "bp4d", "au", Vocabulary(aus=(1,)), records)


def fe_manifest(clips: int = 60) -> Manifest:
    classes = ("anger", "fear", "happiness")
    records = [
        Record(f"{i:04}", f"{i}.mp4", "video", 0, 4, part=str(i % 5 + 1), expression=classes[i % 3 if i % 7 else 0])
        for i in range(clips)
    ]
    return Manifest.build("/x", "dfew", "fe", Vocabulary(expressions=classes), records)


def corpus(name: str = "bp4d", **changes: object) -> CorpusConfig:
    return CorpusConfig.model_validate({"name": name, "root": "/x", **changes})


def names(manifest: Manifest, column: str = "clip") -> set[str]:
    return set(manifest.column(column).to_pylist())


def everything(sides: Split) -> set[str]:
    return names(sides.train) | names(sides.validation) | names(sides.test)


@pytest.mark.parametrize("changes", [{}, {"test_parts": ["P3"]}, {"test_parts": ["P3"], "validation_parts": ["P2"]}])
def test_clean_keeps_subjects_on_one_side_and_loses_nobody(changes: dict[str, object]) -> None:
    manifest = au_manifest()
    sides = split(manifest, corpus(**changes), "clean", seed=1)
    people = [names(side, "subject") for side in (sides.train, sides.validation, sides.test)]
    assert all(people)
    assert sum(map(len, people)) == len(set.union(*people)) == 12
    assert everything(sides) == names(manifest)


def test_parts_are_taken_as_the_owner_names_them() -> None:
    sides = split(au_manifest(), corpus(test_parts=["P3"], validation_parts=["P2"]), "clean", seed=1)
    assert [names(side, "part") for side in (sides.train, sides.validation, sides.test)] == [{"P1"}, {"P2"}, {"P3"}]


def test_clips_without_subjects_are_held_out_class_by_class() -> None:
    sides = split(fe_manifest(), corpus("dfew", test_parts=["1"], holdout=0.2), "clean", seed=1)
    assert names(sides.test, "part") == {"1"}
    assert set(sides.validation.column("expression").to_pylist()) == {"anger", "fear", "happiness"}
    assert not names(sides.train) & names(sides.validation)


def test_published_validates_on_test() -> None:
    sides = split(au_manifest(), corpus(test_parts=["P3"]), "published", seed=1)
    assert names(sides.validation) == names(sides.test)
    assert not names(sides.train) & names(sides.test)


def test_lodo_tests_on_the_corpus_left_out_and_on_no_other() -> None:
    left_out = split(au_manifest(), corpus(role="test"), "lodo", seed=1)
    trained = split(fe_manifest(), corpus("dfew"), "lodo", seed=1)
    assert (len(left_out.train), len(left_out.test)) == (0, 36)
    assert len(trained.test) == 0
    assert len(trained.train)
    assert len(trained.validation)


def test_the_draw_depends_on_the_seed_alone_and_a_newcomer_moves_few() -> None:
    sides = [split(au_manifest(subjects), corpus(), "clean", seed=1) for subjects in (12, 12, 13)]
    assert names(sides[0].test) == names(sides[1].test)
    assert len(names(sides[0].test, "subject") ^ names(sides[2].test, "subject")) <= 2
    assert names(split(au_manifest(), corpus(), "clean", seed=2).test) != names(sides[0].test)


def test_an_unknown_part_is_refused_by_name() -> None:
    with pytest.raises(SplitError, match=r"'bp4d'.*test_parts.*'P4'.*P1, P2, P3"):
        split(au_manifest(), corpus(test_parts=["P4"]), "clean", seed=1)


def test_a_subject_in_two_parts_is_refused_unless_leaks_are_accepted() -> None:
    records = [
        Record(f"c{i}", "x.mp4", "video", 0, 4, subject="S1" if i < 2 else f"S{i}", part=f"P{i + 1}", au_labels=LABELS)
        for i in range(4)
    ]
    manifest = Manifest.build("/x", "bp4d", "au", Vocabulary(aus=(1,)), records)
    with pytest.raises(SplitError, match="share 1 subjects"):
        split(manifest, corpus(test_parts=["P1"], validation_parts=["P3"]), "clean", seed=1)
    accepted = corpus(test_parts=["P1"], validation_parts=["P3"], options={"allow_leaks": True})
    assert len(split(manifest, accepted, "clean", seed=1).train) == 2
