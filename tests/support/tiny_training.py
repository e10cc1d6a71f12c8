"""A model small enough to train in a test, its batches, and a training run that can be one of several workers.

As a script, `tiny_training.py RANK WORLD STORE_FILE RESULT_FILE`, it is one worker of a gloo group under DDP.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from ssm import SSM
from ssm.labels.vocabulary import AFFECT, Vocabulary
from ssm.model.config import (
    AUReaderConfig,
    AUTimeConfig,
    BackboneConfig,
    ExpertsConfig,
    ExpressionTimeConfig,
    GraphConfig,
    LatentConfig,
    ModelConfig,
    TextConfig,
)
from ssm.training.batch import AUBatch, FEBatch, VABatch
from ssm.training.collective import ProcessGroup
from ssm.training.losses import LossConfig
from ssm.training.optim import OptimConfig
from ssm.training.shares import PADDING, parts
from ssm.training.step import StepResult, TrainConfig, TrainStep

AUS, EXPRESSIONS, FRAMES, SIZE = (1, 4, 12, 15), ("happiness", "sadness", "neutral"), 4, 32
FE_BATCH, AU_BATCH, VA_BATCH = 6, 4, 4

FAST = TrainConfig(optim=OptimConfig(visual_encoder=1e-3, experts=1e-3, rest=1e-3))
"""Learning rates at which a model from scratch moves within a few steps."""


def tiny_config(**changes: object) -> ModelConfig:
    """Two transformer blocks of width 32 on 32-pixel frames; `changes` replace fields."""
    return ModelConfig(
        vocabulary=Vocabulary(aus=AUS, expressions=EXPRESSIONS),
        backbone=BackboneConfig(
            name="vit_tiny_patch16_224",
            image_size=SIZE,
            options={"embed_dim": 32, "depth": 2, "num_heads": 2, "patch_size": 16},
            experts=ExpertsConfig(blocks=1, hidden=16, noise=0.5),
        ),
        width=16,
        frames=FRAMES,
        text=TextConfig(contexts=2, style="label"),
        expression_time=ExpressionTimeConfig(heads=2, head_width=8, hidden=32),
        au_time=AUTimeConfig(heads=2),
    ).model_copy(update=changes)


def tiny_model(seed: int = 0, **changes: object) -> SSM:
    """The model of `tiny_config`, the same for the same seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SSM(tiny_config(**changes))


def fe_batch(step: int, size: int = FE_BATCH) -> FEBatch:
    """Clips whose brightness tells their expression; the last class is not in use for odd rows."""
    generator = torch.Generator().manual_seed(1000 + step)
    mask = torch.ones(size, len(EXPRESSIONS), dtype=torch.bool)
    mask[1::2, -1] = False
    labels = torch.randint(0, 2, (size,), generator=generator)
    clips = torch.randint(0, 100, (size, FRAMES, SIZE, SIZE, 3), generator=generator)
    clips = (clips + 100 * labels.view(-1, 1, 1, 1, 1)).to(torch.uint8)
    return FEBatch(clips, labels, mask, torch.arange(size) + step * size)


def au_batch(step: int, size: int = AU_BATCH) -> AUBatch:
    """Clips whose red tells the first AU; even rows label the first two AUs only, the last AU is never labelled."""
    generator = torch.Generator().manual_seed(2000 + step)
    targets = torch.randint(0, 2, (size, FRAMES, len(AUS)), generator=generator).float()
    mask = torch.ones(targets.shape, dtype=torch.bool)
    mask[::2, :, 2:] = False
    mask[..., 3] = False
    clips = torch.randint(0, 100, (size, FRAMES, SIZE, SIZE, 3), generator=generator)
    clips[..., 0] += (100 * targets[..., 0]).long()[..., None, None]
    return AUBatch(clips.to(torch.uint8), targets, mask, torch.arange(size) + step * size)


WITH_AFFECT: dict[str, object] = {"vocabulary": Vocabulary(aus=AUS, expressions=EXPRESSIONS, affect=AFFECT)}
"""Fields of a model with valence and arousal."""


def va_batch(step: int, size: int = VA_BATCH) -> VABatch:
    """Clips whose blue tells valence; arousal is labelled on even rows only."""
    generator = torch.Generator().manual_seed(3000 + step)
    targets = torch.rand(size, FRAMES, 2, generator=generator) * 1.6 - 0.8
    mask = torch.ones(targets.shape, dtype=torch.bool)
    mask[1::2, :, 1] = False
    clips = torch.randint(0, 100, (size, FRAMES, SIZE, SIZE, 3), generator=generator)
    clips[..., 2] += (60 * (targets[..., 0] + 1)).long()[..., None, None]
    return VABatch(clips.to(torch.uint8), targets, mask, torch.arange(size) + step * size)


def tiny_step(config: TrainConfig = FAST, **changes: object) -> TrainStep:
    """A step over a fresh model on the CPU."""
    return TrainStep(tiny_model(**changes), config, device="cpu")


def train(
    step: TrainStep, steps: range, total: int = 20, group: ProcessGroup | None = None, run: str = "plain"
) -> list[StepResult]:
    """Run `steps` of `total`; a worker of a group has its part of each batch."""
    results = []
    for number in steps:
        fe, au = fe_batch(number), au_batch(number)
        va = va_batch(number) if run == "affect" else None
        if run == "unread":
            unread(fe, 1)
        if run == "stills":
            fe = stills(fe, [1 + row % 2 for row in range(FE_BATCH)])
        if group is not None:
            fe, au, va = part_of(fe, group), part_of(au, group), va and part_of(va, group)
        results.append(step(fe, None if run == "one side" else au, number, total, va))
    return results


def part_of(batch: Any, group: ProcessGroup) -> Any:
    """A worker's part of a batch; where it has fewer clips than others, black ones without labels fill it up."""
    size = len(batch.clips)
    mine = torch.from_numpy(parts(size, group.world)[group.rank])
    tensors = {name: value[mine.clamp_min(0)] for name, value in vars(batch).items() if torch.is_tensor(value)}
    for name, value in tensors.items():
        value[mine < 0] = PADDING if name == "row_ids" else FRAMES if name == "distinct" else 0
    return replace(batch, **tensors, whole=size)


def unread(batch: FEBatch, row: int) -> None:
    """Makes a clip one whose pixels could not be read: black frames, no class."""
    batch.clips[row], batch.labels[row], batch.class_mask[row] = 0, 0, False


def stills(batch: FEBatch, counts: list[int]) -> FEBatch:
    """The batch with each clip cut to so many frames, its last one repeated."""
    clips = batch.clips.clone()
    for row, count in enumerate(counts):
        clips[row, count:] = clips[row, count - 1]
    return replace(batch, clips=clips, distinct=torch.tensor(counts))


def fast_with(**changes: object) -> TrainConfig:
    """`FAST` with fields replaced."""
    return FAST.model_copy(update=changes)


WORKER_RUNS: dict[int, tuple[tuple[str, dict[str, object], int], ...]] = {
    2: (
        ("plain", {}, 20),
        ("accumulated", {"accumulation": 2}, 4),
        ("evidence", {"loss": LossConfig(map_evidence=1.0, prevalence=(0.5, 0.1, 0.2, 0.3))}, 4),
        ("weighted", {"sample_weighting": "mal"}, 4),
        ("one side", {}, 4),
        ("unread", {"sample_weighting": "mal"}, 4),
        ("stills", {"expression_teacher": 0.2, "au_partners": "faces"}, 4),
        ("hiva_evidential", {"expression_teacher": 0.2}, 3),
        ("cvae_evidential", {"accumulation": 2}, 3),
        ("affect", {}, 4),
        ("plain_cnn", {"data_init": True}, 3),
    ),
    5: (
        ("plain", {}, 4),
        ("weighted", {"sample_weighting": "mal"}, 4),
        ("stills", {"expression_teacher": 0.2, "au_partners": "faces", "loss": LossConfig(map_evidence=1.0)}, 4),
        ("affect", {}, 4),
        ("plain_cnn", {"data_init": True}, 3),
    ),
}
"""What the workers of a group of that size train one after the other: name, settings, steps. Five share neither batch
evenly, and one of them has no AU clip at all."""


PLAIN_CNN = BackboneConfig(name="plain_cnn", image_size=SIZE, options={"channels": (8, 12)}, experts=None)

MODELS: dict[str, dict[str, object]] = {
    "plain_cnn": {"backbone": PLAIN_CNN},
    "hiva_evidential": {"au_reader": AUReaderConfig(kind="hiva_evidential", graph=GraphConfig(heads=2, neighbours=2))},
    "cvae_evidential": {"au_reader": AUReaderConfig(kind="cvae_evidential", latent=LatentConfig(hidden=8, width=4))},
}
"""What the model of a run of that name has besides."""


def model_of(run: str) -> dict[str, object]:
    """Fields of the model that such a run trains."""
    return WITH_AFFECT if run == "affect" else MODELS.get(run, {})


def _worker(rank: int, world: int, store: str, result: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)

    def wrap(module: nn.Module) -> nn.Module:
        return nn.parallel.DistributedDataParallel(module, find_unused_parameters=True)

    group = ProcessGroup()
    runs: dict[str, Any] = {"taken": _takes_what_gathering_would(group)}
    for name, changes, steps in WORKER_RUNS[world]:
        config = fast_with(**changes)
        step = TrainStep(tiny_model(**model_of(name)), config, device="cpu", wrap=wrap, collective=group)
        found = train(step, range(steps), group=group, run=name)
        runs[name] = {"floats": [r.floats() for r in found], "model": step.state_dict()["model"]}
    if rank == 0:
        torch.save(runs, result)
    dist.destroy_process_group()


def _takes_what_gathering_would(group: ProcessGroup) -> bool:
    """Whether rows fetched from their owners are those of the gathered batch, for tensors of several kinds."""
    batch, rows = (
        au_batch(group.rank),
        torch.randperm(AU_BATCH * group.world, generator=torch.Generator().manual_seed(3)),
    )
    mine = rows[group.rank * AU_BATCH : (group.rank + 1) * AU_BATCH]
    tensors = (batch.clips, batch.targets, batch.mask)
    return all(torch.equal(group.take(tensor, rows), group.gather(tensor)[mine]) for tensor in tensors)


if __name__ == "__main__":
    _worker(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]))
