"""Whole corpora: their owners' grammar, their truth, and that they appear whole or not at all."""

from __future__ import annotations

import csv
import pickle
import subprocess
import sys
from collections import Counter
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from ssm_platform.corpora.registry import read_corpus
from ssm_platform.records import sequence_of
from ssm_platform.synthetic import CORPORA, LabSpec, SyntheticSpec, WildSpec, corpus_jobs, read_truth, run_job
from ssm_platform.synthetic.behaviour import ACTIVE
from ssm_platform.synthetic.corpus import write_corpus
from ssm_platform.synthetic.face.muscles import AU_ORDER
from ssm_platform.synthetic.lab import LAB_CORPORA

SPEC = SyntheticSpec(
    size=64,
    lab=LabSpec(subjects=3, sequences=1, frames=40, missing=0.05),
    wild=WildSpec(clips=33, people=16, shortest=3, longest=5, imbalance=0.0),
)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every corpus, small."""
    folder = tmp_path_factory.mktemp("synthetic")
    return {name: write_corpus(name, folder / name, SPEC, seed=7) for name in CORPORA}


@pytest.mark.parametrize("corpus", CORPORA)
def test_the_platform_reads_a_synthetic_corpus_without_a_problem(corpus: str, roots: dict[str, Path]) -> None:
    reading = read_corpus(corpus, roots[corpus])
    assert [issue for issue in reading.issues if issue.severity != "note"] == []
    assert len({sequence_of(clip) for clip in reading.manifest.column("clip").to_pylist()}) == (
        3 if corpus in LAB_CORPORA else 33
    )


@pytest.mark.parametrize("corpus", CORPORA)
def test_the_truth_names_the_records_and_every_frame(corpus: str, roots: dict[str, Path]) -> None:
    truth = read_truth(roots[corpus])
    lengths = {clip: len(told.intensity) for clip, told in truth.clips.items()}
    manifest = read_corpus(corpus, roots[corpus]).manifest
    read: Counter[str] = Counter()
    for record in manifest:  # a list of several tasks is cut where the class changes, and names the part
        read[sequence_of(record.clip).removeprefix(f"{record.part}/")] += record.length
    assert lengths == read
    peaks = np.array([told.intensity.max() for told in truth.clips.values()])
    assert peaks.min() >= 0
    assert ACTIVE < peaks.max() <= 5


def test_bp4d_occurrence_tables(roots: dict[str, Path]) -> None:
    for path in (roots["bp4d"] / "AUCoding/AU_OCC").iterdir():
        header, *rows = list(csv.reader(path.read_text().splitlines()))
        subject, task = path.stem.split("_")
        images = {int(image.stem) for image in (roots["bp4d"] / "Sequences(2D+3D)" / subject / task).iterdir()}
        assert header[:4] == ["0", "1", "2", "4"]
        assert {int(row[0]) for row in rows} == images
        codes = {column: {row[index] for row in rows} for index, column in enumerate(header) if index}
        assert codes["25"] == {"9"}, "BP4D does not code AU25"
        assert all(seen <= {"0", "1", "9"} for seen in codes.values())
        levels = (roots["bp4d"] / "AUCoding/AU_INT/AU12" / f"{path.stem}_AU12.csv").read_text().split()
        assert all(int(level.split(",")[1]) in (0, 1, 2, 3, 4, 5, 9) for level in levels)


def test_disfa_videos_and_intensities(roots: dict[str, Path]) -> None:
    for folder in (roots["disfa"] / "ActionUnit_Labels").iterdir():
        assert len(list(folder.iterdir())) == 12
        rows = (folder / f"{folder.name}_au12.txt").read_text().split()
        assert [int(row.split(",")[0]) for row in rows] == list(range(1, 41))
        assert {int(row.split(",")[1]) for row in rows} <= set(range(6))
        (video,) = (p for p in roots["disfa"].glob("Video*_LeftCamera/*") if folder.name in p.name.upper())
        with av.open(str(video)) as container:
            assert container.streams.video[0].average_rate == 20
            assert sum(1 for _ in container.decode(video=0)) == 40


def test_names_are_spelt_as_the_owners_copies_spell_them(roots: dict[str, Path]) -> None:
    videos = {path.relative_to(roots["disfa"]).as_posix() for path in roots["disfa"].glob("Video*/*")}
    assert {"Video_LeftCamera/LeftVideoSN001_Comp.avi", "Videos_LeftCamera/LeftVideoSN006_comp.avi"} <= videos
    lists = {path.read_text().splitlines()[1][0] for path in roots["dfew"].glob("EmoLabel_DataSplit/*/*.csv")}
    assert '"' in lists
    assert any(first.isdigit() for first in lists)


def test_labels_agree_with_the_truth_up_to_the_coders_doubt(roots: dict[str, Path]) -> None:
    manifest, truth = read_corpus("disfa", roots["disfa"]).manifest, read_truth(roots["disfa"])
    columns = [AU_ORDER.index(number) for number in manifest.labels.aus]
    for row in range(len(manifest)):
        record = manifest[row]
        labels = np.array(record.au_labels).reshape(record.length, -1)
        active = truth.clips[record.clip].intensity[:, columns] >= ACTIVE
        assert (labels == active).mean() > 0.9


def test_dfew_lists_are_five_folds_over_all_clips(roots: dict[str, Path]) -> None:
    root = roots["dfew"]
    tested: list[str] = []
    for fold in range(1, 6):
        lists = [root / f"EmoLabel_DataSplit/{side}(single-labeled)/set_{fold}.csv" for side in ("train", "test")]
        train, test = (path.read_text().split() for path in lists)
        assert train[0] == test[0] == "video_name,label"
        assert len(train) + len(test) == 33 + 2
        tested += [line.split(",")[0].strip('"') for line in test[1:]]
    assert sorted(map(int, tested)) == list(range(1, 34))
    frames = sorted((root / "Clip/clip_224x224/00001").iterdir(), key=lambda path: int(path.stem))
    assert frames[0].name == "1.jpg"
    assert cv2.imread(str(frames[0])).shape == (64, 64, 3)


def test_the_association_truth_is_beside_fe_corpora(roots: dict[str, Path]) -> None:
    truth = read_truth(roots["mafw"])
    assert truth.association is not None
    assert truth.association.designed.shape == truth.association.drawn.shape == (11, len(AU_ORDER))
    happy = truth.association.expressions.index("happiness")
    assert truth.association.designed[happy, AU_ORDER.index(12)] > 0.8
    clips = [told for told in truth.clips.values() if told.expression == "happiness" and told.drawn is not None]
    assert np.allclose(truth.association.drawn[happy], np.mean([told.drawn for told in clips], axis=0))
    assert all((told.intensity.max(axis=0)[told.drawn] > 1).all() for told in clips)
    assert read_truth(roots["bp4d"]).association is None


def test_the_same_seed_writes_the_same_bytes_and_another_does_not(roots: dict[str, Path], tmp_path: Path) -> None:
    def content(root: Path) -> dict[str, bytes]:
        files = (path for path in root.rglob("*") if path.is_file() and path.suffix != ".npz")
        return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}

    again = write_corpus("dfew", tmp_path / "again", SPEC, seed=7, processes=2)
    assert content(again) == content(roots["dfew"])
    other = corpus_jobs("dfew", tmp_path / "other", SPEC, seed=8)
    assert {placed.folder for placed in other.jobs}.isdisjoint({roots["dfew"]})
    run_job(other.jobs[0])
    first = "Clip/clip_224x224/00001/1.jpg"
    assert (other.jobs[0].folder / first).read_bytes() != content(again)[first]


def test_a_complete_corpus_is_kept_and_another_refused(roots: dict[str, Path], tmp_path: Path) -> None:
    root = roots["bp4d"]
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    work = corpus_jobs("bp4d", root, SPEC, seed=7)
    assert work.jobs == ()
    assert work.finish() == root
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    with pytest.raises(ValueError, match=r"seed 8\): remove that folder or give another"):
        corpus_jobs("bp4d", root, SPEC, seed=8)
    (tmp_path / "photo.jpg").write_bytes(b"mine")
    with pytest.raises(ValueError, match="is not empty and no synthetic corpus"):
        corpus_jobs("bp4d", tmp_path, SPEC, seed=7)
    assert (tmp_path / "photo.jpg").read_bytes() == b"mine"


def test_an_unfinished_corpus_is_not_there(tmp_path: Path) -> None:
    root = tmp_path / "bp4d"
    work = corpus_jobs("bp4d", root, SPEC, seed=7)
    run_job(pickle.loads(pickle.dumps(work.jobs[0])))
    assert not root.exists()
    work = corpus_jobs("bp4d", root, SPEC, seed=7)
    for placed in reversed(work.jobs):
        run_job(placed)
        run_job(placed)
    assert not root.exists()
    assert work.finish() == root
    assert [path.name for path in tmp_path.iterdir()] == ["bp4d"]


def test_videos_instead_of_frames(tmp_path: Path) -> None:
    wild = WildSpec(clips=20, people=20, shortest=4, longest=4, storage="video")
    spec = SyntheticSpec(size=64, wild=wild)
    reading = read_corpus("dfew", write_corpus("dfew", tmp_path / "dfew", spec, seed=1))
    assert {reading.manifest[row].kind for row in range(20)} == {"video"}
    assert {reading.manifest[row].length for row in range(20)} == {4}
    with pytest.raises(ValueError, match=r"wild\.storage must be 'frames'"):
        write_corpus("ferv39k", tmp_path / "ferv39k", spec, seed=1)


def test_impossible_wishes_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no synthetic corpus 'ck'"):
        corpus_jobs("ck", tmp_path / "ck", SPEC, seed=1)
    with pytest.raises(ValueError, match="shortest 9 > longest 3"):
        WildSpec(shortest=9, longest=3)
    with pytest.raises(ValueError, match="less than or equal to 27"):
        LabSpec(subjects=28)


def test_a_script_without_a_guard_ends_with_the_reason_instead_of_starting_processes_for_ever(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from ssm_platform.synthetic import PRESETS, write_corpus\n"
        f"write_corpus('dfew', {str(tmp_path / 'dfew')!r}, PRESETS['tiny'], 1, processes=2)\n"
    )
    ended = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 1
    assert "BrokenProcessPool" in ended.stderr
    assert "if __name__ == '__main__':" in ended.stderr
    assert not (tmp_path / "dfew").exists()
