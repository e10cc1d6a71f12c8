"""Meta auxiliary learning: weights of FE clips, learned so that one virtual step lowers the AU loss (arXiv 2105.06620).

A small network looks at each FE clip and gives it a weight. At every step (1) the shared parameters take a virtual
gradient step on AU loss + weighted FE loss, (2) the network is moved to lower the AU loss after that step, by the
gradient through the step, (3) the real step uses the weights it then gives. Clips whose gradient helps AUs gain weight.

DEVIATION: the virtual step moves the layer in which both tasks' paths end together (the backbone's projection to D),
not the whole network: features below it are computed once, without gradient, so the cost is one forward pass and not
two more backward passes through the backbone.
DEVIATION: weights are scaled to mean 1 over the global batch. The running means of the losses balance the tasks
already; the weights choose among clips.
DEVIATION: the virtual step is on L2 + weighted L1 as they are, without the running means and the semantic losses of the
real one. That scales the gradient into the network, which Adam undoes, and decides which clips gain only to second
order in `virtual_rate`.

Features of all workers are gathered and every worker does the same computation, so a split over workers or
micro-batches changes rounding only. Letters: B clips, T frames, D width, H width below the projection, E, A labels.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import skip_init

from ssm.interface import Preprocessing
from ssm.model import FrameFeatures, Prototypes, SSMNetwork, frame_seeds
from ssm.training.batch import AUPart, FEPart
from ssm.training.collective import Collective
from ssm.training.losses import LossConfig, coded_loss, expression_losses
from ssm.training.optim import check_names
from ssm.training.shares import PADDING


class MALConfig(BaseModel):
    """Settings of meta auxiliary learning."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rate: float = Field(default=1e-3, gt=0, description="learning rate (Adam) of the weighting network")
    virtual_rate: float = Field(
        default=0.01, gt=0, description="learning rate of the virtual step, small enough that it lowers the AU loss"
    )
    hidden: int = Field(default=32, ge=1, description="width of the weighting network")


@dataclass(frozen=True)
class WeightingScope:
    """Where and among whom weights are learned."""

    seed: int
    device: torch.device
    collective: Collective
    preprocessing: Preprocessing
    loss: LossConfig = field(default_factory=LossConfig)


@dataclass(frozen=True)
class GlobalFeatures:
    """What the virtual step sees of the whole batch: what enters the projection, without gradient, and labels."""

    fe_BTH: Tensor
    au_BTH: Tensor
    fe: FEPart
    au: AUPart
    prototypes: Prototypes | None


class SampleWeighting:
    """Owns the weighting network and its optimiser; calling it takes one step of both and gives weights."""

    def __init__(self, model: SSMNetwork, config: MALConfig, scope: WeightingScope) -> None:
        """ValueError for a model whose AUs are read off more than the projected features."""
        if model.au_head.needs_tokens:
            raise ValueError(
                f"sample_weighting='mal' moves the pooled features alone; au_reader.kind "
                f"{model.config.au_reader.kind!r} reads patches too: take 'linear' or 'evidential'"
            )
        self._model, self._config, self._loss = model, config, scope.loss
        self._collective, self._preprocessing = scope.collective, scope.preprocessing
        self._projection = projection(model)
        self.network = _network(model.config.width + 1, config.hidden, scope.seed).to(scope.device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=config.rate)

    def __call__(self, fe: FEPart, au: AUPart, *, key: int, slices: int) -> Tensor:
        """Weights of this worker's FE clips (B), mean 1 over the global batch. Autocast is for the backbone only."""
        batch = self.gather(fe, au, key, slices)
        with torch.autocast(fe.clips.device.type, enabled=False):
            weights_B = self._learn(batch)
        local = len(fe.labels)
        return weights_B[self._collective.rank * local : (self._collective.rank + 1) * local]

    @torch.no_grad()
    def gather(self, fe: FEPart, au: AUPart, key: int, slices: int) -> GlobalFeatures:
        """Features and labels of all workers' clips; each worker brings its own."""
        gather = self._collective.gather
        shares = None if fe.shares is None else gather(fe.shares)
        whole_fe = FEPart(fe.clips, gather(fe.labels), gather(fe.class_mask), gather(fe.row_ids), shares=shares)
        whole_au = AUPart(au.clips, gather(au.targets), gather(au.weights), au.row_ids)
        fe_BTH, au_BTH = self._features(fe, 0, key, slices), self._features(au, 1, key, slices)
        return GlobalFeatures(gather(fe_BTH), gather(au_BTH), whole_fe, whole_au, self._model.prototypes())

    def au_loss_after(self, batch: GlobalFeatures, weights_B: Tensor) -> Tensor:
        """The AU loss after one virtual step on AU loss + weighted FE loss: a function of the weights."""
        shared = tuple(tensor.detach().requires_grad_() for tensor in self._shared())
        losses_B, au = self._losses(batch, *shared)
        clips = (batch.fe.row_ids != PADDING).sum()
        gradients = torch.autograd.grad((weights_B * losses_B).sum() / clips + au, shared, create_graph=True)
        rate = self._config.virtual_rate
        weight, bias = (tensor - rate * gradient for tensor, gradient in zip(shared, gradients, strict=True))
        return self._losses(batch, weight, bias)[1]

    def state_dict(self) -> dict[str, Any]:
        """Network and optimiser (the live tensors)."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state; ValueError where its parts are others."""
        check_names("sample weighting", state, self.state_dict())
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _learn(self, batch: GlobalFeatures) -> Tensor:
        """One step of the network; the weights it gives then (B, global)."""
        known_B = batch.fe.class_mask.any(1)
        with torch.no_grad():
            losses_B, _ = self._losses(batch, *self._shared())
            inputs = self._look(batch, losses_B)
        au_after = self.au_loss_after(batch, self._weigh(inputs, known_B))
        parameters = list(self.network.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(au_after, parameters), strict=True):
            parameter.grad = gradient
        self.optimizer.step()
        with torch.no_grad():
            return self._weigh(inputs, known_B)

    def _losses(self, batch: GlobalFeatures, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """FE loss of each clip (B) and mean AU loss, with these parameters in the projection."""
        fe_BTD, au_BTD = (functional.linear(x, weight, bias) for x in (batch.fe_BTH, batch.au_BTH))
        with sdpa_kernel(SDPBackend.MATH):  # the only one that can be differentiated twice
            fe_logits, _ = self._model.read_expression(fe_BTD, batch.prototypes)
        au = self._model.read_aus(FrameFeatures(au_BTD), batch.prototypes)
        fe = batch.fe
        losses_B = expression_losses(fe_logits, fe.labels, fe.class_mask, fe.shares, self._loss.fe_smoothing)
        focus = self._model.config.au_reader.focus
        au_sum = coded_loss(au.logits, au.evidence, batch.au.targets, batch.au.weights, focus, self._loss)
        return losses_B, au_sum / batch.au.count.clamp_min(1)

    def _look(self, batch: GlobalFeatures, losses_B: Tensor) -> Tensor:
        """What the network sees of a clip: its mean feature, normalised, and its loss (B D+1)."""
        features_BD = functional.linear(batch.fe_BTH.mean(1), *self._shared())
        return torch.cat([functional.layer_norm(features_BD, features_BD.shape[1:]), losses_B[:, None]], dim=1)

    def _weigh(self, inputs: Tensor, known_B: Tensor) -> Tensor:
        """Weights of mean 1 over the clips that have a label; the others' are 0."""
        weights_B = cast(Tensor, self.network(inputs))[:, 0].sigmoid() * known_B
        return weights_B / (weights_B.sum() / known_B.sum().clamp_min(1)).clamp_min(1e-8)

    def _shared(self) -> tuple[Tensor, Tensor]:
        weight = self._projection.weight.detach()
        bias = self._projection.bias
        return weight, weight.new_zeros(len(weight)) if bias is None else bias.detach()

    def _features(self, part: FEPart | AUPart, side: int, key: int, slices: int) -> Tensor:
        """What enters the projection (B T H), with the noise of the step that follows."""
        caught: list[Tensor] = []
        hook = self._projection.register_forward_pre_hook(lambda _, inputs: caught.append(inputs[0].float()))
        try:
            for piece in part.split(slices):
                seeds = frame_seeds(piece.row_ids, part.clips.shape[1], key, side)
                self._model.backbone(piece.inputs(self._preprocessing).flatten(0, 1), seeds)
        finally:
            hook.remove()
        return torch.cat(caught).view(*part.clips.shape[:2], -1)


def projection(model: SSMNetwork) -> nn.Linear:
    """The last layer of the backbone, to width D; ValueError where a timm model ends in something else."""
    last = cast(Any, model.backbone.net).get_classifier()
    if not isinstance(last, nn.Linear):
        raise ValueError(
            f"sample_weighting='mal' needs a backbone that ends in a linear layer; "
            f"{model.config.backbone.name!r} ends in {type(last).__name__}"
        )
    return last


def _network(inputs: int, hidden: int, seed: int) -> nn.Sequential:
    """Two layers from a generator of their own; the last starts at zero, so that all weights start equal."""
    first, last = (skip_init(nn.Linear, *sizes) for sizes in ((inputs, hidden), (hidden, 1)))  # type: ignore[no-untyped-call]
    nn.init.xavier_uniform_(first.weight, generator=torch.Generator().manual_seed(seed))
    for tensor in (first.bias, last.weight, last.bias):
        nn.init.zeros_(tensor)
    return nn.Sequential(first, nn.ReLU(), last)
