"""Splits: no subject on two sides, nothing empty in silence, the same answer every time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ssm.labels.vocabulary import Vocabulary
from ssm_platform.base.overrides import override
from ssm_platform.corpora.registry import read_corpus
from ssm_platform.records.groups import with_shared_videos
from ssm_platform.records.manifest import Manifest, Record
from ssm_platform.runs.config import CorpusConfig, Protocol
from ssm_platform.runs.preparation import prepare
from ssm_platform.runs.recipes import tiny
from ssm_platform.runs.splits import Source, Split, SplitError, split, split_all

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


def test_draws_of_runs_before_this_version_are_drawn_again() -> None:
    """Written down from the version that salted with the corpus's name only: stored runs must find their splits."""
    sources = [Source(au_manifest(), corpus(), "bp4d"), Source(fe_manifest(), corpus("dfew"), "dfew")]
    sides = split_all(sources, "clean", seed=1)
    assert names(sides["bp4d"].test, "subject") == {"S00", "S09", "S10"}
    assert names(sides["bp4d"].validation, "subject") == {"S02", "S07"}
    assert names(sides["dfew"].test) == {f"{clip:04}" for clip in (1, 2, 5, 14, 19, 24, 27, 30, 43, 46, 49, 53, 56, 59)}
    assert names(sides["dfew"].validation) == {f"{clip:04}" for clip in (3, 4, 10, 16, 26, 33, 39, 41, 42, 44)}
    for source in sources:
        alone = split(source.manifest, source.corpus, "clean", seed=1)
        assert fingerprints(alone) == fingerprints(sides[source.corpus.name])


def fingerprints(sides: Split) -> list[str]:
    return [side.fingerprint for side in (sides.train, sides.validation, sides.test)]


def cameras(*readers: str, subjects: tuple[int, ...] = (12, 12), **changes: object) -> list[Source]:
    return [
        Source(au_manifest(count), corpus(f"corpus{place}", **changes), reader)
        for place, (reader, count) in enumerate(zip(readers, subjects, strict=True))
    ]


def people(sides: dict[str, Split], side: str) -> set[str]:
    return set.union(*(names(getattr(one, side), "subject") for one in sides.values()))


@pytest.mark.parametrize("readers", [("disfa", "disfa"), ("disfa", "disfaplus"), ("bp4d", "list_bp4d")])
@pytest.mark.parametrize("subjects", [(12, 12), (12, 5), (5, 12)])
@pytest.mark.parametrize("protocol", ["clean", "published"])
def test_people_whom_two_corpora_show_are_on_one_side(
    readers: tuple[str, str], subjects: tuple[int, int], protocol: Protocol
) -> None:
    sources = cameras(*readers, subjects=subjects)
    sides = split_all(sources, protocol, seed=1)
    trained = people(sides, "train")
    assert not trained & people(sides, "test")
    assert not trained & people(sides, "validation")
    if protocol == "clean":
        assert not people(sides, "validation") & people(sides, "test")
    assert all(everything(sides[source.corpus.name]) == names(source.manifest) for source in sources)
    assert fingerprints(sides["corpus0"]) == fingerprints(split(sources[0].manifest, sources[0].corpus, protocol, 1))


def test_the_owners_parts_of_one_corpus_bind_another_that_has_none() -> None:
    drawn, bound = cameras("disfaplus", "disfa", subjects=(5, 12))
    bound = Source(bound.manifest, corpus("corpus1", test_parts=["P3"]), "disfa")
    sides = split_all([drawn, bound], "clean", seed=1)
    assert names(sides["corpus1"].test, "part") == {"P3"}
    assert names(sides["corpus0"].test, "part") == {"P3"}
    assert not people(sides, "train") & (people(sides, "test") | people(sides, "validation"))


@pytest.mark.parametrize("protocol", ["clean", "published"])
def test_parts_that_train_on_the_people_of_another_corpus_s_test_side_are_refused(protocol: Protocol) -> None:
    one, other = cameras("disfa", "disfa")
    parts = [corpus("left", test_parts=["P3"]), corpus("right", test_parts=["P1"])]
    sources = [Source(one.manifest, parts[0], "disfa"), Source(other.manifest, parts[1], "disfa")]
    with pytest.raises(SplitError, match=r"corpus 'right': subject S\d\d is on the .* side of another corpus"):
        split_all(sources, protocol, seed=1)
    leaky = corpus("right", test_parts=["P1"], options={"allow_leaks": True})
    assert split_all([sources[0], Source(other.manifest, leaky, "disfa")], protocol, seed=1)


def test_people_of_a_corpus_left_out_are_not_trained_on() -> None:
    one, other = cameras("disfa", "disfaplus")
    left_out = Source(other.manifest, corpus("corpus1", role="test"), "disfaplus")
    with pytest.raises(SplitError, match="on the test side of another corpus of the same people"):
        split_all([one, left_out], "lodo", seed=1)


@pytest.mark.parametrize("readers", [("manifest", "manifest"), ("bp4d", "bp4dplus")])
def test_equal_names_of_other_people_mean_nothing(readers: tuple[str, str]) -> None:
    sources = cameras(*readers)
    sides = split_all(sources, "clean", seed=1)
    for source in sources:
        alone = split(source.manifest, source.corpus, "clean", seed=1)
        assert fingerprints(alone) == fingerprints(sides[source.corpus.name])
    assert people({"0": sides["corpus0"]}, "test") != people({"1": sides["corpus1"]}, "test")


def test_ready_manifests_are_known_by_the_reader_that_made_them(tmp_path: Path) -> None:
    au_manifest().write(tmp_path / "shards.parquet")
    corpora = [
        {"name": name, "manifest": str(tmp_path / "shards.parquet"), "reader": None} for name in ("left", "right")
    ]
    sides = prepare(override(tiny(), {"data.corpora": corpora})).splits
    assert names(sides["left"].test) == names(sides["right"].test)
    assert names(sides["left"].validation) == names(sides["right"].validation)


def in_the_owners_grammar(root: Path, videos: int) -> None:
    """Both challenges of Aff-Wild2 over one set of videos, some with two persons, each with every expression."""
    for number in range(videos):
        for name in [f"v{number}_left", f"v{number}_right"] if number % 4 == 0 else [f"v{number}"]:
            folder = root / "cropped" / name
            folder.mkdir(parents=True)
            for frame in range(1, 65):
                (folder / f"{frame:05d}.jpg").write_bytes(b"x")
            aus = root / "AU_Detection_Challenge" / "Train_Set" / f"{name}.txt"
            aus.parent.mkdir(parents=True, exist_ok=True)
            aus.write_text("\n".join(["header", *[",".join("01"[(frame + number) % 2] * 12) for frame in range(64)]]))
            classes = root / "EXPR_Classification_Challenge" / "Train_Set" / f"{name}.txt"
            classes.parent.mkdir(parents=True, exist_ok=True)
            classes.write_text("\n".join(["header", *[str(frame // 16) for frame in range(64)]]))


@pytest.mark.parametrize("stored", [False, True], ids=["the owner's tree", "manifests of shards"])
def test_no_video_of_affwild2_is_on_two_sides_of_either_challenge_or_of_both(tmp_path: Path, stored: bool) -> None:
    in_the_owners_grammar(tmp_path, 40)
    sources = []
    for name in ("affwild2_au", "affwild2_expr"):
        manifest = read_corpus(name, tmp_path, **({"min_length": 8} if "expr" in name else {})).manifest
        if stored:
            shard = [replace(record, source="a.data", kind="shard", files=None) for record in manifest]
            manifest = Manifest.build(tmp_path, name, manifest.task, manifest.labels, shard)
        sources.append(Source(manifest, corpus(name), name))
    found = split_all(sources, "clean", seed=1)
    assert {name: len(everything(sides)) for name, sides in found.items()} == {"affwild2_au": 50, "affwild2_expr": 200}
    of_side = [
        {clip.split("/")[0].split("_")[0] for sides in found.values() for clip in names(getattr(sides, side))}
        for side in ("train", "validation", "test")
    ]
    assert sum(map(len, of_side)) == len(set.union(*of_side)) == 40


def test_clips_cut_out_of_one_video_of_nobody_known_stay_together(tmp_path: Path) -> None:
    records = [
        Record(f"c{clip:03}", f"film{clip // 5}.mp4", "video", 10 * clip, 8, expression=("anger", "fear")[clip % 2])
        for clip in range(100)
    ]
    manifest = with_shared_videos(
        Manifest.build("/x", "manifest", "fe", Vocabulary(expressions=("anger", "fear")), records)
    )
    sides = split(manifest, corpus("manifest"), "clean", seed=1)
    films = [names(side, "source") for side in (sides.train, sides.validation, sides.test)]
    assert all(films)
    assert sum(map(len, films)) == len(set.union(*films)) == 20
    apart = fe_manifest()
    assert with_shared_videos(apart) is apart
