"""Writer and readers agree through the owners' grammars alone: what was written aside as truth is what is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ssm_platform.corpora import read_corpus
from ssm_platform.corpora.readers.action_units.bp4d import PARTS as BP4D_PARTS
from ssm_platform.corpora.readers.action_units.disfa import PARTS as DISFA_PARTS
from ssm_platform.media.frames import open_frames
from ssm_platform.records import sequence_of
from ssm_platform.synthetic import SyntheticSpec, write_corpus
from ssm_platform.synthetic.affect import DRIFT, affect_map
from ssm_platform.synthetic.behaviour import ACTIVE
from ssm_platform.synthetic.face.muscles import AU_ORDER
from ssm_platform.synthetic.spec import LabSpec, WildSpec
from ssm_platform.synthetic.truth import read_truth

SPEC = SyntheticSpec(
    size=64,
    lab=LabSpec(subjects=3, sequences=1, frames=120, jitter=0.0, missing=0.01),
    wild=WildSpec(clips=22, people=6, shortest=4, longest=6),
)
PARTS = {"bp4d": BP4D_PARTS, "disfa": DISFA_PARTS}


@pytest.mark.parametrize("corpus", ["bp4d", "disfa"])
def test_lab_labels_land_on_the_frames_they_describe(corpus: str, tmp_path: Path) -> None:
    root = write_corpus(corpus, tmp_path / corpus, SPEC, seed=3)
    reading = read_corpus(corpus, root)
    assert (reading.lost, reading.rows, len(reading.manifest)) == (0, 360, 3)
    truth = read_truth(root).clips
    columns = [AU_ORDER.index(au) for au in reading.manifest.labels.aus]
    agreement = np.zeros(5)
    for record in reading.manifest:
        assert record.au_labels is not None
        assert record.part == PARTS[corpus][record.subject or ""]
        intensity = truth[record.clip].intensity[:, columns]
        assert record.length == len(intensity)
        agreement += [_agreement(record.au_labels, intensity, shift) for shift in range(-2, 3)]
        assert open_frames(record, root).read([record.length - 1]).shape == (1, 64, 64, 3)
    assert agreement.argmax() == 2, agreement
    assert agreement[2] / len(reading.manifest) > 0.9


@pytest.mark.parametrize("corpus", ["dfew", "ferv39k", "mafw"])
def test_wild_clips_keep_class_length_and_part(corpus: str, tmp_path: Path) -> None:
    root = write_corpus(corpus, tmp_path / corpus, SPEC, seed=3)
    reading = read_corpus(corpus, root)
    assert (reading.issues, reading.rows) == ([], 22)
    truth = read_truth(root).clips
    read = {record.clip: (record.expression, record.length) for record in reading.manifest}
    assert read == {clip: (one.labelled, len(one.intensity)) for clip, one in truth.items()}
    assert all(record.part for record in reading.manifest)


@pytest.mark.parametrize("corpus", ["affwild2_va", "affwild2_mtl", "afewva"])
def test_affect_is_the_planted_map_of_what_the_face_does(corpus: str, tmp_path: Path) -> None:
    root = write_corpus(corpus, tmp_path / corpus, SPEC, seed=3)
    reading = read_corpus(corpus, root, **({"other": True} if corpus == "affwild2_mtl" else {}))
    assert reading.lost == 0
    assert "va" in reading.manifest.tasks
    truth, part = read_truth(root).clips, reading.manifest.of_task("va")
    assert part.lengths.sum() == 360
    off: list[np.ndarray] = []
    offset: dict[str, int] = {}
    for record in part:
        name = sequence_of(record.clip).rpartition("/")[2]
        first = offset.get(name, 0)
        offset[name] = first + record.length
        shown = truth[name].intensity[first : first + record.length].astype(float) / 5 @ affect_map().T
        assert record.va_labels is not None
        off.append(np.clip(shown, -1, 1) - record.va_labels)
    wrong = np.concatenate(off)
    assert np.nanstd(wrong) < 2 * DRIFT
    assert np.nanstd(part.frame_affect) > 3 * np.nanstd(wrong)
    if corpus == "affwild2_mtl":
        assert reading.manifest.tasks == ("au", "fe", "va")
        assert len(set(reading.manifest.column("expression").to_pylist())) > 2


def _agreement(labels: np.ndarray, intensity: np.ndarray, shift: int) -> float:
    """Share of scored labels that say what the intensity says, with the labels moved by ``shift`` frames."""
    inner = slice(3, len(labels) - 3)
    moved = np.roll(labels, shift, axis=0)[inner]
    active = (intensity >= ACTIVE)[inner]
    return float((moved == active)[moved >= 0].mean())
