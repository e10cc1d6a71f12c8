"""Corpora whose frames carry their clip and frame number in the pixels, and what a reader should make of them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from stamp import read_stamp, stamp

from ssm.interface.preprocessing import Preprocessing
from ssm.labels.vocabulary import Vocabulary
from ssm.training.augmentation import Augmentation
from ssm_platform.data.clips import ClipConfig, ClipReader, Columns
from ssm_platform.data.plan import AU, PlanConfig, Rows
from ssm_platform.data.sampling import segment_indices, window_indices
from ssm_platform.records.manifest import Manifest, Record

T, SIDE = 4, 64
VOCABULARY = Vocabulary(aus=(1, 2, 4, 12), expressions=("happiness", "neutral", "fear"))
FE_LABELS = Vocabulary(expressions=("fear", "happiness"))
AU_LABELS = Vocabulary(aus=(12, 1))
PLAIN = (Augmentation(), Augmentation())
PLAN_CONFIG = PlanConfig(fe_batch=8, au_batch=4, frames=T)


def write_frames(folder: Path, clip: int, length: int) -> tuple[str, ...]:
    folder.mkdir(parents=True)
    names = tuple(f"{frame}.png" for frame in range(length))
    for frame, name in enumerate(names):
        cv2.imwrite(str(folder / name), stamp(np.full((SIDE, SIDE, 3), 90, np.uint8), clip, frame))
    return names


def au_labels_of(clip: int, length: int) -> np.ndarray:
    """Every value is there: 1, 0 and -1."""
    values = (np.arange(length)[:, None] + np.arange(len(AU_LABELS.aus)) + clip) % 3 - 1
    return values.astype(np.int8)


def stamped_manifests(root: Path) -> list[Manifest]:
    """Eleven expression clips of 2 to 12 frames, four AU records of 6 to 15: stamps 0..10 and 100..103."""
    fe = [
        Record(
            f"{i:05}",
            f"fe/{i}",
            "frames",
            0,
            length=2 + i,
            files=write_frames(root / f"fe/{i}", i, 2 + i),
            expression=FE_LABELS.expressions[i % 2],
        )
        for i in range(11)
    ]
    au = [
        Record(
            f"F00{i}",
            f"au/{i}",
            "frames",
            0,
            length=6 + 3 * i,
            files=write_frames(root / f"au/{i}", 100 + i, 6 + 3 * i),
            au_labels=au_labels_of(i, 6 + 3 * i),
        )
        for i in range(4)
    ]
    return [Manifest.build(root, "dfew", "fe", FE_LABELS, fe), Manifest.build(root, "bp4d", "au", AU_LABELS, au)]


def reader_of(manifests: list[Manifest], augmentation: tuple[Augmentation | None, ...] | None = PLAIN) -> ClipReader:
    preprocessing = Preprocessing(image_size=SIDE)
    config = ClipConfig(frames=T, preprocessing=preprocessing, augmentation=augmentation)
    return ClipReader(manifests, VOCABULARY, config)


def frames_asked_for(manifests: list[Manifest], rows: Rows, place: int, training: bool) -> list[int]:
    length = int(manifests[rows.corpus[place]].lengths[rows.record[place]])
    if rows.task[place] == AU:
        return window_indices(int(rows.start[place]), length, T).indices.tolist()
    return segment_indices(length, T, int(rows.seed[place]) if training else None).tolist()


def assert_right_clips(manifests: list[Manifest], rows: Rows, columns: Columns, training: bool = True) -> None:
    np.testing.assert_array_equal(columns["row"], rows.row)
    for place in range(len(rows)):
        stamps = [read_stamp(frame) for frame in columns["clip"][place]]
        clip = int(rows.record[place]) + (100 if rows.task[place] == AU else 0)
        assert [s.clip for s in stamps] == [clip] * T
        assert [s.frame for s in stamps] == frames_asked_for(manifests, rows, place, training)
