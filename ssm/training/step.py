"""One training step of the method (section 6), the same alone, accumulated and spread over workers.

Every random draw is a pure function of (seed, step, row ids); each loss is a global masked sum over a global count.
So any cut of a global batch over micro-batches and workers gives the same step up to rounding, and a step taken after
`load_state_dict` is bit-equal to the one that would have followed `state_dict`. Knows no Ray, no file and no plan:
DDP comes in as `wrap`, its group as `collective`. Which losses there are stands in `losses.table`.
Letters: B clips, T frames, A AUs, E expressions, L the losses of this run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from ssm.interface import Preprocessing
from ssm.model import Precision, SSMNetwork, autocast, resolve, standardised, start_on
from ssm.training.batch import AUBatch, FEBatch, MicroBatch, VABatch, au_part, fe_part, va_part
from ssm.training.collective import Collective, SingleProcess, send
from ssm.training.exactness import check_exact
from ssm.training.losses import LossConfig, Moments, Pass, RunningMeans, asked, losses_of
from ssm.training.mal import MALConfig, SampleWeighting, WeightingScope
from ssm.training.optim import (
    MovingAverage,
    OptimConfig,
    check_names,
    check_shapes,
    learned_state,
    make_optimizer,
    set_progress,
    trainable,
)
from ssm.training.teaching import MapTeacher
from ssm.training.watch import Watch

_NOISE_STREAM = 2  # keeps the key of the gates' noise apart from other draws of the same (seed, step)


class TrainConfig(BaseModel):
    """Everything a training step decides; the defaults are the method's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    optim: OptimConfig = Field(default=OptimConfig(), description="learning rates, schedule, clipping, averaging")
    loss: LossConfig = Field(default=LossConfig(), description="weights of the losses, ramp, running means")
    mixup_alpha: float = Field(
        default=0.4, ge=0, description="mixup of AU and VA clips: share ~ Beta(alpha, alpha); 0: none"
    )
    au_partners: Literal["au", "faces"] = Field(
        default="au",
        description="whose pictures mixup puts into AU clips: other AU clips', or the step's FE clips', so that AUs "
        "coded on one kind of picture (drawn faces) are learned among another (real ones)",
    )
    expression_teacher: float = Field(
        default=0.0, ge=0, le=1, description="weight of AU targets that the map gives FE clips by their class; 0: none"
    )
    precision: Precision = Field(
        default="float32", description="bfloat16: autocast in the forward pass; weights and losses stay float32"
    )
    data_init: bool = Field(
        default=False,
        description="standardised convolutions start on the first batch: each channel with mean 0 and deviation 1",
    )
    compile: bool | Literal["auto"] = Field(
        default="auto", description="compile the model with torch.compile; auto: on a GPU, where it pays"
    )
    compile_mode: Literal["default", "reduce-overhead", "max-autotune-no-cudagraphs"] = Field(
        default="default", description="torch.compile's mode: reduce-overhead captures CUDA graphs"
    )
    accumulation: int = Field(
        default=1, ge=1, le=1024, description="micro-batches per step: less memory, the same result up to rounding"
    )
    seed: int = Field(default=1, ge=0, description="seed of mixup and of the gates' noise")
    sample_weighting: Literal["none", "mal"] = Field(
        default="none", description="mal: weights of FE clips learned to help the AU side (meta auxiliary learning)"
    )
    mal: MALConfig = Field(default=MALConfig(), description="settings of sample_weighting = mal")


@dataclass(frozen=True)
class StepResult:
    """What a step found. Tensors are scalars on the device: reading them as floats waits for the device."""

    total: Tensor
    losses: dict[str, Tensor]  # of the global batch, before division by running means; by name
    grad_norm: Tensor  # before clipping
    lr: dict[str, float]  # by parameter group

    def floats(self) -> dict[str, float]:
        """`total`, `grad_norm`, `loss/NAME`, `lr/GROUP` as plain numbers, for a log."""
        losses = {f"loss/{name}": float(value) for name, value in self.losses.items()}
        rates = {f"lr/{name}": value for name, value in self.lr.items()}
        return {"total": float(self.total), "grad_norm": float(self.grad_norm), **losses, **rates}


class TrainStep:
    """Owns model, optimiser, averaged weights and running means; calling it takes one step.

    `wrap` is applied once to the model on its device (DDP); `collective` must then span the same workers. On a GPU a
    nan is reported one step late, so that the host need not wait; `check` and `state_dict` report it at once.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainConfig,
        *,
        device: torch.device | str,
        wrap: Callable[[nn.Module], nn.Module] = lambda module: module,
        collective: Collective | None = None,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        self.config, self.device = config, torch.device(device)
        check_exact(model)
        if config.data_init:
            standardised(model)  # refuses here what could not start at the first step
        resolve(config.precision, self.device)
        self.model = model.to(self.device)
        self.collective = collective or SingleProcess()
        self.preprocessing = preprocessing or Preprocessing()
        self.optimizer = make_optimizer(self.model, config.optim)
        self.average = MovingAverage(self.model, config.optim.ema)
        self.losses = losses_of(config.loss, self.model)
        self.means = RunningMeans([loss.name for loss in self.losses], config.loss.momentum, self.device)
        self._moments = self._make_moments()
        self._divisors = [self._divisor(loss.divisor, loss.name) for loss in self.losses]
        self._wrapped = wrap(self.model)
        self._forward = self._compiled() if self.compiles else self._wrapped
        self._parameters = list(trainable(self.model).values())
        self._weighting = self._make_weighting()
        self._teacher = self._make_teacher()
        self._started: set[tuple[bool, ...]] = set()
        self._watch = Watch()

    def __call__(
        self, fe: FEBatch | None, au: AUBatch | None, step: int, total_steps: int, va: VABatch | None = None
    ) -> StepResult:
        """Take step `step` (from 0) of `total_steps` on this worker's slice of the global batch; all may be on CPU.

        All workers must bring the same sides. Raises ValueError for a batch that cannot be cut into `accumulation`
        slices, and `TrainingDiverged`.
        """
        self._check_batch(fe, au, va)
        self.model.train()
        progress = step / total_steps
        batch = self._prepare(fe, au, va, step)
        if self.config.data_init and step == 0:
            self._start_on(batch)
        slices, key = batch.split(self.config.accumulation), noise_key(self.config.seed, step)
        counts_L = self._global_counts(batch)
        self._start_means(slices, counts_L, key)
        coefficients_L = self._coefficients(progress)
        losses_L, produced = self._backward(slices, coefficients_L, counts_L, key)
        rates = set_progress(self.optimizer, self.config.optim, progress)
        grad_norm = nn.utils.clip_grad_norm_(self._parameters, self.config.optim.clip_norm)
        losses = {name: loss for name, loss, there in zip(self.means.names, losses_L, produced, strict=True) if there}
        self._watch.look(step, {**losses, "grad_norm": grad_norm})
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.average.update()
        self.means.update(losses_L, self._seen(counts_L, produced))
        self._moments.settle()
        return StepResult((losses_L * coefficients_L).sum(), losses, grad_norm, rates)

    @property
    def compiles(self) -> bool:
        """Whether the model is compiled here."""
        return self.device.type == "cuda" if self.config.compile == "auto" else self.config.compile

    def check(self) -> None:
        """Wait for the last step and raise `TrainingDiverged` if it found a nan."""
        self._watch.flush()

    @contextmanager
    def averaged(self) -> Iterator[nn.Module]:
        """The model in evaluation mode with averaged weights; afterwards in training mode with its own, bit for bit."""
        with self.average.applied():
            self.model.eval()
            try:
                yield self.model
            finally:
                self.model.train()

    def state_dict(self) -> dict[str, Any]:
        """Everything the next step depends on. Tensors are the live ones: write or copy them before stepping on."""
        self.check()
        return {
            "model": learned_state(self.model),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "means": self.means.state_dict(),
            "weighting": self._weighting.state_dict() if self._weighting else {},
            **({"moments": moments} if (moments := self._moments.state_dict()) else {}),
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state; ValueError, before anything changes, where names or shapes do not fit."""
        own = {"model": learned_state(self.model), "average": self.average.state_dict()}
        moments = state.get("moments", {})  # of losses over a whole step that is cut into passes, and of no others
        there = {name: part for name, part in state.items() if name != "moments"}
        check_names("parts of the training state", there, {**own, "optimizer": 0, "means": 0, "weighting": 0})
        for part, tensors in own.items():
            check_names(f"{part} tensors", state[part], tensors)
            check_shapes(f"{part} tensors", state[part], tensors)
        self.means.check(state["means"])
        if self._weighting:
            self._weighting.load_state_dict(state["weighting"])
        self.optimizer.load_state_dict(state["optimizer"])
        for part, tensors in own.items():
            for name, tensor in tensors.items():
                tensor.copy_(state[part][name])
        self.means.load_state_dict(state["means"])
        self._moments.load_state_dict(moments, self.device)
        self._started.clear()

    def _check_batch(self, fe: FEBatch | None, au: AUBatch | None, va: VABatch | None) -> None:
        sides = (("FE", fe), ("AU", au), ("VA", va))
        sizes = {name: len(side.clips) for name, side in sides if side is not None}
        if not sizes:
            raise ValueError("a training step needs an FE batch, an AU batch or both, or a VA batch; got neither")
        for name, size in sizes.items():
            if size < self.config.accumulation:
                raise ValueError(
                    f"{name} batch of {size} clips on this worker cannot be cut into "
                    f"accumulation = {self.config.accumulation} micro-batches: lower it or raise the batch"
                )

    def _make_weighting(self) -> SampleWeighting | None:
        if self.config.sample_weighting == "none":
            return None
        if not isinstance(self.model, SSMNetwork):
            raise ValueError(f"sample_weighting = mal needs an SSM model, got {type(self.model).__name__}")
        scope = WeightingScope(self.config.seed, self.device, self.collective, self.preprocessing, self.config.loss)
        return SampleWeighting(self.model, self.config.mal, scope)

    def _make_teacher(self) -> MapTeacher | None:
        if not self.config.expression_teacher:
            return None
        if not isinstance(self.model, SSMNetwork):
            raise ValueError(f"expression_teacher needs an SSM model, got {type(self.model).__name__}")
        return MapTeacher(self.model, self.config.expression_teacher)

    def _make_moments(self) -> Moments:
        joint = [loss.name for loss in self.losses if loss.joint]
        return Moments(joint, self.config.loss.momentum, self.config.accumulation == 1, self.collective.sum)

    def _start_on(self, batch: MicroBatch) -> None:
        """Weights from the first frame of each clip of the first step; the running average begins anew with them."""
        start_on(cast(Any, self.model).backbone.net, batch.first_frames(self.preprocessing), self.collective.sum)
        self.average = MovingAverage(self.model, self.config.optim.ema)

    def _prepare(self, fe: FEBatch | None, au: AUBatch | None, va: VABatch | None, step: int) -> MicroBatch:
        config = self.config
        fe = None if fe is None else fe.to(self.device)
        fe_side = None if fe is None else fe_part(fe)
        if fe_side and self._teacher:
            fe_side = self._teacher(fe_side)
        au_side = None
        if au is not None:
            faces = fe if config.au_partners == "faces" else None
            au_side = au_part(au.to(self.device), config.mixup_alpha, config.seed, step, self.collective, faces)
        if self._weighting and fe_side and au_side:
            with self._autocast():
                key = noise_key(config.seed, step)
                weights = self._weighting(fe_side, au_side, key=key, slices=config.accumulation)
            fe_side = replace(fe_side, weights=weights)
        va_side = None
        if va is not None:
            va_side = va_part(va.to(self.device), config.mixup_alpha, config.seed, step, self.collective)
        return MicroBatch(fe_side, au_side, va_side)

    def _autocast(self) -> torch.autocast:
        return autocast(self.device, self.config.precision)

    def _global_counts(self, batch: MicroBatch) -> Tensor:
        """L: what the global sum of each loss is divided by."""
        zero = torch.zeros((), device=self.device)
        counts = (loss.count(batch) for loss in self.losses)
        return self.collective.sum(torch.stack([zero if count is None else count for count in counts]))

    def _divisor(self, of: str | None, own: str) -> int | None:
        """Whose running mean a loss is divided by, as a place among the losses; None: nobody's."""
        return None if of is None else self.means.names.index(own if of == "own" else of)

    def _coefficients(self, progress: float) -> Tensor:
        """L: the factor of each loss in the total."""
        weights_L = self._constants(tuple(loss.weight(self.config.loss, progress) for loss in self.losses))
        own_L = self.means.divisors()
        return weights_L / torch.stack([own_L.new_ones(()) if at is None else own_L[at] for at in self._divisors])

    @torch.no_grad()
    def _start_means(self, slices: list[MicroBatch], counts_L: Tensor, key: int) -> None:
        """Where a loss has no running mean yet, one pass without gradient finds the value it starts at."""
        sides = slices[0].sides
        if sides in self._started:
            return
        sums, produced = zip(*(self._sums(self.model, part, key) for part in slices), strict=True)
        losses_L = self.collective.sum(torch.stack(sums).sum(0)) / _safe(counts_L)
        self._moments.start()
        self.means.start(losses_L, self._seen(counts_L, produced[0]))
        wanted = zip(self.means.known, produced[0], self.losses, strict=True)
        if all(known or not there or loss.divisor != "own" for known, there, loss in wanted):
            self._started.add(sides)

    def _backward(
        self, slices: list[MicroBatch], coefficients_L: Tensor, counts_L: Tensor, key: int
    ) -> tuple[Tensor, list[bool]]:
        """Gradients of the total into the parameters; the global losses (L) and which of them the model produced."""
        factors_L = coefficients_L * self.collective.world / _safe(counts_L)  # DDP takes the mean over workers
        sums = torch.zeros_like(counts_L)
        for number, part in enumerate(slices, start=1):
            with self._sync(last=number == len(slices)):
                sums_L, produced = self._sums(self._forward, part, key)
                torch.autograd.backward((sums_L * factors_L).sum())
            sums += sums_L.detach()
        return self.collective.sum(sums) / _safe(counts_L), produced

    def _sums(self, model: Callable[..., Any], part: MicroBatch, key: int) -> tuple[Tensor, list[bool]]:
        """The weighted sums over one micro-batch (L), zero where the model produces no such loss, and which it did."""
        inputs: dict[str, Any] = {**part.inputs(self.preprocessing), **asked(self.losses, part)}
        with self._autocast():
            # as a tensor: a compiled model would otherwise be compiled again for another number
            output = model(**inputs, noise_key=torch.full((), key, device=self.device))
        one = Pass(part, output, self.model, self.config.loss, self._moments)
        sums = [loss.total(one) for loss in self.losses]
        zero = torch.zeros((), device=self.device)
        return torch.stack([zero if value is None else value for value in sums]), [v is not None for v in sums]

    def _seen(self, counts_L: Tensor, produced: list[bool]) -> Tensor:
        """L: which losses have a value in this step that belongs into their running mean."""
        own = tuple(there and loss.divisor == "own" for there, loss in zip(produced, self.losses, strict=True))
        return (counts_L > 0) & self._constants(own).bool()

    def _constants(self, values: tuple[float, ...]) -> Tensor:
        """A few numbers on the device."""
        return send(torch.tensor(values, dtype=torch.float32), self.device)

    def _compiled(self) -> nn.Module:
        # Shapes are the same at every step; left dynamic, blocks of several widths share a graph that inductor refuses.
        mode = None if self.config.compile_mode == "default" else self.config.compile_mode
        return cast(nn.Module, torch.compile(self._wrapped, dynamic=False, mode=mode))

    def _sync(self, last: bool) -> AbstractContextManager[None]:
        """DDP reduces gradients with the last micro-batch only."""
        no_sync: Callable[[], AbstractContextManager[None]] | None = getattr(self._wrapped, "no_sync", None)
        return nullcontext() if last or no_sync is None else no_sync()


def noise_key(seed: int, step: int) -> int:
    """The key of the gates' noise at `step`: below 2**31, so that it fits any integer type."""
    return int(np.random.SeedSequence((seed, step, _NOISE_STREAM)).generate_state(1)[0] >> 1)


def _safe(counts_L: Tensor) -> Tensor:
    """Counts to divide by: where nothing is labelled the sum is 0 and so is the loss."""
    return torch.where(counts_L > 0, counts_L, 1.0)
