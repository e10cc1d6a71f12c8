"""The list of losses: a loss is a row, with its own sum, count, weight over training and running mean.

    total = sum over rows of  weight(progress) * (global sum / global count) / running mean

L1 = CE(FE logits), L2 = BCE(AU logits), L3 = CE(w s_E), L4 = BCE(w s_A) are the method's (section 6), with weights
(1, 2, a, a) / 3 and the ramp a = 2 / (1 + exp(-10 p)) - 1; beside them 1 - CCC of valence and arousal, with 1 / 3.
To add one: a file with its sum, a weight in `LossConfig`, a row here: the step,
the checkpoints, the curves and the watch over nan take it from the row.
Letters: B clips, T frames, A AUs, E expressions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ssm.model import AUReader
from ssm.training.batch import MicroBatch
from ssm.training.evidence import map_evidence
from ssm.training.losses.beta import coded_loss, divergence_from_ignorance, misleading
from ssm.training.losses.concordance import concordance_loss, moments
from ssm.training.losses.config import LossConfig, arrival, ramp, rise
from ssm.training.losses.plain import au_loss, expression_loss

AFFECT_LOSS = "affect"
_SCALE = 3.0  # the divisor of the method's total


@dataclass(frozen=True)
class Pass:
    """One forward pass in training: what went in, what came out, of which model and how losses are set."""

    part: MicroBatch
    output: Any  # SSMOutput
    model: Any  # SSMNetwork
    config: LossConfig
    moments: Callable[[str, Tensor], Tensor] = lambda name, own: own  # this pass's to those of the step (`Moments`)

    def coded(self, logits: Tensor, evidence: Tensor | None, targets: Tensor, weights: Tensor) -> Tensor:
        """L2 in the form of the model's reader."""
        focus = None if evidence is None else self.model.config.au_reader.focus
        return coded_loss(logits, evidence, targets, weights, focus, self.config)


def _always(config: LossConfig, model: nn.Module) -> bool:
    """Whether the model can produce the loss is seen from its first pass."""
    return True


def _nothing(part: MicroBatch) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Loss:
    """One term of the total."""

    name: str
    total: Callable[[Pass], Tensor | None]  # weighted sum over one micro-batch; None: not produced
    count: Callable[[MicroBatch], Tensor | None]  # what the global sum is divided by, this worker's part; None: 0
    weight: Callable[[LossConfig, float], float]  # its factor at training progress in [0, 1]
    on: Callable[[LossConfig, nn.Module], bool] = _always  # whether a run has it; ValueError where it cannot
    divisor: str | None = "own"  # the running mean it is divided by: its own, that of the loss named, or none
    asks: Callable[[MicroBatch], dict[str, Any]] = _nothing  # what it asks of the forward pass besides logits
    joint: bool = False  # whether its sum needs moments of the whole step


def losses_of(config: LossConfig, model: nn.Module) -> tuple[Loss, ...]:
    """The losses of a run, in the order of its vectors. ValueError for one that the model cannot have."""
    return tuple(loss for loss in LOSSES if loss.on(config, model))


def asked(losses: Iterable[Loss], part: MicroBatch) -> dict[str, Any]:
    """What all of them ask of a forward pass over `part`."""
    return {name: value for loss in losses for name, value in loss.asks(part).items()}


def _fe_sum(one: Pass, logits_BE: Tensor | None) -> Tensor | None:
    fe = one.part.fe
    if fe is None or logits_BE is None:
        return None
    return expression_loss(logits_BE, fe.labels, fe.class_mask, fe.weights, fe.shares, one.config.fe_smoothing)


def _au_semantic(one: Pass) -> Tensor | None:
    au, logits_BTA = one.part.au, one.output.au_semantic_logits
    return None if au is None or logits_BTA is None else au_loss(logits_BTA, au.targets, au.weights)


def _au_and_taught(one: Pass) -> Tensor | None:
    """L2, and what the map teaches of the FE clips' AUs."""
    coded, fe = _coded(one), one.part.fe
    if fe is None or fe.au_targets is None or fe.au_weights is None:
        return coded
    pairs = one.output.fe_au_evidence
    evidence = None if pairs is None else pairs.mean(1)
    taught = one.coded(one.output.fe_au_logits.mean(1), evidence, fe.au_targets, fe.au_weights)
    return taught if coded is None else coded + taught


def _coded(one: Pass) -> Tensor | None:
    """L2 of the coded clips; with a latent variable, shared by what the labels and what the pictures say."""
    au, output = one.part.au, one.output
    if au is None or output.au_logits is None:
        return None
    seen = one.coded(output.au_logits, output.au_evidence, au.targets, au.weights)
    if getattr(output, "au_posterior", None) is None:
        return seen
    share = one.config.latent.posterior
    return (1 - share) * seen + share * one.coded(output.au_logits, output.au_posterior, au.targets, au.weights)


def _ask_taught(part: MicroBatch) -> dict[str, Any]:
    return {"fe_aus": True} if part.fe is not None and part.fe.au_targets is not None else {}


def _fits_prevalence(config: LossConfig, model: nn.Module) -> bool:
    """True; ValueError where `loss.prevalence` is not for this model."""
    reader, vocabulary = _reader(model), getattr(model, "vocabulary", None)
    if config.prevalence and reader is not None and vocabulary is not None:
        if reader.gives_evidence:
            raise ValueError(
                "loss.prevalence is for readers that give logits; the loss of Beta evidence has au_reader.focus: "
                "set it to ()"
            )
        if len(config.prevalence) != len(vocabulary.aus):
            raise ValueError(
                f"loss.prevalence names {len(config.prevalence)} shares for {len(vocabulary.aus)} AUs: "
                f"give one for each of {', '.join(f'AU{au}' for au in vocabulary.aus)}"
            )
    return True


def _fe_count(part: MicroBatch) -> Tensor | None:
    return None if part.fe is None else part.fe.count


def _au_count(part: MicroBatch) -> Tensor | None:
    return None if part.au is None else part.au.count


def _au_and_taught_count(part: MicroBatch) -> Tensor | None:
    counts = [*([part.au.count] if part.au else []), *([part.fe.taught] if part.fe else [])]
    return torch.stack(counts).sum() if counts else None


def _reader(model: nn.Module) -> AUReader | None:
    reader = getattr(model, "au_head", None)
    return reader if isinstance(reader, AUReader) else None


def _evidential(config: LossConfig, model: nn.Module) -> bool:
    reader = _reader(model)
    return config.evidential.regulariser > 0 and reader is not None and reader.gives_evidence


def _latent(config: LossConfig, model: nn.Module) -> bool:
    reader = _reader(model)
    return reader is not None and reader.needs_labels


def _regulariser(one: Pass) -> Tensor | None:
    au, evidence = one.part.au, one.output.au_evidence
    if au is None or evidence is None:
        return None
    return (au.weights * divergence_from_ignorance(misleading(evidence, au.targets))).sum()


def _divergence(one: Pass) -> Tensor | None:
    au, apart = one.part.au, one.output.au_divergence
    return None if au is None or apart is None else (au.weights * apart).sum()


def _ask_labels(part: MicroBatch) -> dict[str, Any]:
    """What a posterior is made from."""
    return {} if part.au is None else {"au_targets": part.au.targets, "au_known": part.au.weights}


def _affect_sum(one: Pass) -> Tensor | None:
    va, found = one.part.va, one.output.affect
    if va is None or found is None:
        return None
    own = moments(found, va.targets, va.weights)
    return concordance_loss(found, va.targets, va.weights, one.moments(AFFECT_LOSS, own))


def _has_affect(config: LossConfig, model: nn.Module) -> bool:
    vocabulary: Any = getattr(model, "vocabulary", None)
    return vocabulary is not None and bool(vocabulary.affect)


def _maps_learn(config: LossConfig, model: nn.Module) -> bool:
    mapping: Any = getattr(model, "mapping", None)
    if config.map_evidence and (mapping is None or mapping.learn == "none"):
        raise ValueError("loss.map_evidence is for maps that learn, and this model has none: set it to 0")
    return config.map_evidence > 0


def _both_sides(part: MicroBatch) -> bool:
    """Without AU clips nothing teaches the AU head: what it sees is no evidence."""
    return part.fe is not None and part.au is not None


def _map_evidence(one: Pass) -> Tensor | None:
    fe, mapping = one.part.fe, getattr(one.model, "mapping", None)
    if fe is None or not _both_sides(one.part):
        return None
    assert mapping is not None
    return map_evidence(mapping, one.output.fe_au_logits.detach(), fe.labels, fe.class_mask.any(1))


def _ask_evidence(part: MicroBatch) -> dict[str, Any]:
    return {"fe_aus": True} if _both_sides(part) else {}


def _au_weight(config: LossConfig, progress: float) -> float:
    return config.au / _SCALE * arrival(config, progress)


def _semantic(weight: float, config: LossConfig, progress: float) -> float:
    return ramp(progress, config.ramp) * weight / _SCALE


LOSSES: tuple[Loss, ...] = (
    Loss("fe", lambda one: _fe_sum(one, one.output.fe_logits), _fe_count, lambda config, _: config.fe / _SCALE),
    Loss(
        "au", _au_and_taught, _au_and_taught_count, _au_weight, on=_fits_prevalence, asks=_ask_taught
    ),
    Loss(
        "fe_semantic", lambda one: _fe_sum(one, one.output.fe_semantic_logits), _fe_count,
        lambda config, progress: _semantic(config.fe_semantic, config, progress),
    ),
    Loss(
        "au_semantic", _au_semantic, _au_count,
        lambda config, progress: _semantic(config.au_semantic, config, progress) * arrival(config, progress),
    ),
    Loss(
        "map_evidence", _map_evidence, _fe_count, lambda config, _: config.map_evidence,
        on=_maps_learn, divisor=None, asks=_ask_evidence,
    ),
    Loss(
        "au_regulariser", _regulariser, _au_count,
        lambda config, progress: _au_weight(config, progress) * config.evidential.regulariser
        * rise(progress, config.evidential.ramp),
        on=_evidential, divisor="au",
    ),
    Loss(
        "au_divergence", _divergence, _au_count,
        lambda config, progress: _au_weight(config, progress) * config.latent.divergence
        * rise(progress, config.latent.ramp),
        on=_latent, divisor="au", asks=_ask_labels,
    ),
    Loss(
        AFFECT_LOSS, _affect_sum, lambda part: None if part.va is None else part.va.count,
        lambda config, _: config.affect / _SCALE, on=_has_affect, joint=True,
    ),
)  # fmt: skip
"""Every loss there is; `losses_of` says which of them a run has."""
