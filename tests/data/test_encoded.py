"""Clips shipped as files: the same bits where a CPU makes the pixels, the same geometry where a GPU's operations do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ssm.interface.preprocessing import Preprocessing
from ssm.labels.vocabulary import Vocabulary
from ssm.training.augmentation import Augmentation, augment, draw_warp
from ssm.training.shares import PADDING
from ssm_platform.base.hashing import UNREAD
from ssm_platform.base.storage import open_storage
from ssm_platform.data.clips import ClipConfig, ClipReader, to_batches
from ssm_platform.data.encoded import PixelMaker, _damage, warped
from ssm_platform.data.plan import VA, Plan, PlanConfig, Rows
from ssm_platform.media.shards import FaceMark, ShardWriter, StoredFrame
from ssm_platform.records.manifest import Manifest, Record

T, STORED, SIDE = 4, 48, 32
LABELS = Vocabulary(expressions=("fear", "happiness"))
WARP = Augmentation(scale=(0.3, 1.0), ratio=(0.8, 1.25), flip=0.5, brightness=0.3, rotation=20)
CPU = torch.device("cpu")
Frames = NDArray[np.uint8]


def smooth(seed: int, side: int, frames: int) -> Frames:
    """Pictures as smooth as faces are."""
    noise = np.random.default_rng(seed).integers(0, 256, (frames, side // 8, side // 8, 3), np.uint8)
    return np.stack([cv2.resize(frame, (side, side), interpolation=cv2.INTER_CUBIC) for frame in noise])


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Six clips of 3 to 8 frames in a shard; the last one's files are no images, though their checksums fit."""
    root = tmp_path_factory.mktemp("shards")
    records = []
    with ShardWriter(open_storage(root), "one") as writer:
        for number in range(6):
            files = [cv2.imencode(".jpg", frame)[1].tobytes() for frame in smooth(number, STORED, 3 + number)]
            stored = [StoredFrame(b"no image" if number == 5 else file, FaceMark.FOUND) for file in files]
            start, _ = writer.add(f"{number}", iter(stored))
            label = LABELS.expressions[number % 2]
            records.append(Record(f"{number}", writer.source, "shard", start, len(stored), expression=label))
        manifest = Manifest.build(root, "dfew", "fe", LABELS, records)
        writer.publish(manifest)
    return manifest


def reader(manifest: Manifest, encoded: bool) -> ClipReader:
    config = ClipConfig(
        frames=T, preprocessing=Preprocessing(image_size=SIDE), augmentation=(WARP, None), encoded=encoded
    )
    return ClipReader([manifest, manifest], LABELS, config)


def rows(manifest: Manifest) -> Rows:
    """A step of training, the same clips for evaluation, and places that nothing fills."""
    trained = Plan.of([manifest], PlanConfig(fe_batch=6, au_batch=0, frames=T)).rows(0, 1)
    every = Rows.concatenate([trained, trained])
    every.corpus[6:] = 1
    return every.filled(np.array([*range(12), PADDING]), np.zeros(13, np.int8))


def test_where_a_cpu_makes_the_pixels_they_are_bit_for_bit_those_of_the_decode_processes(manifest: Manifest) -> None:
    asked = rows(manifest).columns()
    expected, shipped = (reader(manifest, encoded).read(asked) for encoded in (False, True))
    assert "clip" not in shipped
    assert sum(map(len, shipped["jpeg"])) < expected["clip"].nbytes
    shipped = {name: np.array(column) for name, column in shipped.items()}
    for column in shipped.values():
        column.flags.writeable = False  # as Ray hands them out
    made = PixelMaker(reader(manifest, True).config, CPU, threads=2)(shipped)
    for name in set(expected) - {"problem"}:
        np.testing.assert_array_equal(made[name], expected[name], err_msg=name)
    assert [bool(said) for said in made["problem"]] == [bool(said) for said in expected["problem"]]
    assert (made["sample"] == UNREAD).sum() == 3, "what is no image, twice, and what only fills up"
    fe, *_ = to_batches(made)
    assert fe is not None
    assert torch.equal(fe.clips, torch.from_numpy(expected["clip"]))


@pytest.mark.parametrize("stored", [48, 100])
@pytest.mark.parametrize("seed", range(4))
def test_a_gpus_operations_warp_to_the_same_places_and_nearly_the_same_pixels(stored: int, seed: int) -> None:
    """Ramps tell where each pixel came from: within 1/16 of a pixel; pictures differ by rounding."""
    steps = np.arange(stored) * 255 // (stored - 1)
    ramp = np.stack(
        [np.tile(steps, (stored, 1)), np.tile(steps[:, None], (1, stored)), np.full((stored, stored), 99)], -1
    )
    for frames, mean, most in ((ramp[None].astype(np.uint8), 0.6, 2), (smooth(seed, stored, 2), 0.6, 8)):
        expected = augment(frames, WARP, SIDE, seed)
        warp = draw_warp(WARP, stored, stored, SIDE, seed)
        found = warped(torch.from_numpy(frames).permute(0, 3, 1, 2), warp, SIDE).numpy()
        apart = np.abs(found.astype(int) - expected.astype(int))
        assert apart.mean() <= mean
        assert apart.max() <= most


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_clips_are_made_there_beside_the_step(manifest: Manifest) -> None:
    asked = rows(manifest).columns()
    expected = reader(manifest, False).read(asked)
    maker, shipped = PixelMaker(reader(manifest, True).config, torch.device("cuda")), reader(manifest, True).read(asked)
    torch.cuda._sleep(2 * 10**9)  # type: ignore[no-untyped-call]  # the step's stream is busy for a second
    with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
        made: Any = maker(shipped)
        assert made["clip"].device.type == "cuda"
        found = made["clip"].cpu()
    apart = (found.int() - torch.from_numpy(expected["clip"]).int()).abs().float()
    assert apart.mean() <= 1.5
    assert apart.flatten(1).mean(1).max() <= 4, "no clip is another's, or what lay there before"


def test_what_a_card_cannot_decode_is_left_to_the_cpu_but_for_want_of_memory() -> None:
    with _damage():
        torch.stack([torch.zeros(1), torch.zeros(2)])  # frames of two sizes
    with pytest.raises(torch.OutOfMemoryError), _damage():
        raise torch.OutOfMemoryError


def test_batches_of_every_task_are_of_clips_wherever_these_lie() -> None:
    columns: dict[str, Any] = {
        "task": np.array([VA, VA]), "row": np.arange(2),
        "clip": torch.arange(24, dtype=torch.uint8).view(2, 1, 2, 2, 3),
        "va_target": np.zeros((2, 1, 2), np.float32), "va_mask": np.ones((2, 1, 2), np.uint8),
    }  # fmt: skip
    va = to_batches(columns).va
    assert va is not None
    assert torch.equal(va.clips, columns["clip"])


def test_only_shards_ship_files(manifest: Manifest, tmp_path: Path) -> None:
    other = Manifest.build(tmp_path, "dfew", "fe", LABELS, [Record("a", "a.mp4", "video", 0, 5, expression="fear")])
    with pytest.raises(ValueError, match="corpus 'dfew': clips of kind \\['video'\\] cannot be shipped as files"):
        reader(other, True)
