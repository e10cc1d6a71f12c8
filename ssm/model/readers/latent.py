"""A latent variable of each AU and frame, whose variance says how ambiguous the picture is (methods, 4; after CV-AFE).

    prior      p(z_a | x): of each scale s, (mu_s, ln var_s) = Linear_s(h_{s,a}), fused as a product of Gaussians:
               1 / var = sum_s 1 / var_s,  mu = var sum_s mu_s / var_s
    posterior  q(z_a | x, y): the same parameters + MLP([h_{s,a}; c]), c = Linear([k (2 y - 1); k]), k what is known
    evidence   Linear_a [mean_s h_{s,a}; z_a] + w s_A / 2 (+, -), as `evidential`

Labels enter in training only; the loss is on z of q and on z of p, so that the head meets what it will be given.
Evaluation reads z = mu of the prior, or the mean evidence of some draws of it. Letters: B clips, T frames, A action
units, H, Z widths, s scales.
"""

from __future__ import annotations

from typing import Self, cast

import torch
from torch import Tensor, nn

from ssm.model import noise
from ssm.model.config import ModelConfig
from ssm.model.heads import cosine_scores
from ssm.model.precision import full, island
from ssm.model.readers.base import AUInputs, AUReader, AUReading, AUTeaching
from ssm.model.readers.evidence import Evidence
from ssm.model.readers.evidential import evidential_reading
from ssm.model.readers.scales import Scales

_PRIOR_STREAM, _POSTERIOR_STREAM, _SAMPLES_STREAM = 2001, 2002, 2003  # numbers of no block, which key the gates' noise
_LOG_VARIANCE = (-8.0, 4.0)
Gaussian = tuple[Tensor, Tensor]
"""Mean and variance, each (B, T, A, Z)."""


class LatentReader(AUReader):
    """Evidence from features and a latent variable."""

    needs_tokens = True
    needs_labels = True
    gives_evidence = True
    smooths = False

    def __init__(self, config: ModelConfig, grid: tuple[int, int]) -> None:
        super().__init__()
        aus, latent = config.vocabulary.aus, config.au_reader.latent
        self.focus, self.scale, self.latent = (
            config.au_reader.focus,
            config.semantic_weight / config.temperature,
            latent.width,
        )
        self.samples = latent.samples
        self.scales = Scales(config.width, aus, grid, latent.hidden, latent.windows)
        count = len(latent.windows)
        self.prior = nn.Parameter(torch.randn(count, latent.hidden, 2 * latent.width) * latent.hidden**-0.5)
        self.prior_bias = nn.Parameter(torch.zeros(count, 2 * latent.width))
        self.labels = nn.Linear(2 * len(aus), latent.hidden)
        self.seen = nn.Linear(2 * latent.hidden, latent.hidden)
        self.shift = nn.Linear(latent.hidden, 2 * latent.width)
        nn.init.zeros_(self.shift.weight)
        nn.init.zeros_(self.shift.bias)
        features = latent.hidden + latent.width
        self.weight = nn.Parameter(torch.empty(len(aus), features, 2).uniform_(-(features**-0.5), features**-0.5))
        self.bias = nn.Parameter(torch.zeros(len(aus), 2))

    @classmethod
    def of(cls, config: ModelConfig, grid: tuple[int, int] | None) -> Self:
        """The reader of a configuration."""
        assert grid is not None
        return cls(config, grid)

    def read(self, inputs: AUInputs) -> AUReading:
        """Evidence by the prior; in training also by the posterior, and how far the two are apart."""
        assert inputs.tokens is not None
        h = self.scales(inputs.tokens)
        over_time = inputs.over_time(inputs.pooled)
        with island(h):
            h, semantic = full(h), None
            if inputs.texts is not None:
                semantic = self.scale * cosine_scores(full(over_time), inputs.texts.fused)
            numbers = torch.einsum("sbtah,shz->sbtaz", h, self.prior) + self.prior_bias[:, None, None, None]
            prior = fused(numbers)
            if self.samples and not self.training:
                reading = self._sampled(h, prior, semantic)
            else:
                reading = self._answer(h, self._drawn(prior, inputs.teaching, _PRIOR_STREAM), semantic)
            variance = prior[1].mean(-1)
            if inputs.teaching is None or inputs.teaching.targets is None:
                return AUReading(reading.logits, semantic, reading.evidence, variance=variance)
            posterior = fused(numbers + self._shifted(h, inputs.teaching))
            taught = self._answer(h, self._drawn(posterior, inputs.teaching, _POSTERIOR_STREAM), semantic)
            apart = divergence(posterior, prior).sum(-1)
            return AUReading(reading.logits, semantic, reading.evidence, taught.evidence, apart, variance)

    def _answer(self, h: Tensor, z_BTAZ: Tensor, semantic: Tensor | None) -> AUReading:
        features = torch.cat([h.mean(0), z_BTAZ], dim=-1)
        scores = torch.einsum("btac,aco->btao", features, self.weight) + self.bias
        return evidential_reading(scores, semantic, self.focus)

    def _sampled(self, h: Tensor, prior: Gaussian, semantic: Tensor | None) -> AUReading:
        """Mean evidence of draws that are the same for every frame, so that no answer depends on its batch."""
        mean, variance = prior
        seeds = torch.arange(self.samples, device=mean.device)
        draws_SAZ = noise.normal(seeds, _SAMPLES_STREAM, mean.shape[2], self.latent)
        pairs = [self._answer(h, mean + variance.sqrt() * draw_AZ, semantic).evidence for draw_AZ in draws_SAZ]
        evidence = Evidence.of(torch.stack(cast(list[Tensor], pairs)).mean(0))
        return AUReading(evidence.untilted(self.focus), semantic, evidence.pairs)

    def _shifted(self, h: Tensor, teaching: AUTeaching) -> Tensor:
        """What the labels add to the prior's numbers: (s, B, T, A, 2Z)."""
        assert teaching.targets is not None
        assert teaching.known is not None
        known = (teaching.known > 0).to(h.dtype)
        said = self.labels(torch.cat([known * (2 * teaching.targets - 1), known], dim=-1))
        both = torch.cat([h, said[None, :, :, None].expand_as(h)], dim=-1)
        return cast(Tensor, self.shift(self.seen(both).relu()))

    def _drawn(self, of: Gaussian, teaching: AUTeaching | None, stream: int) -> Tensor:
        """A draw in training, by the rows' own seeds; the mean in evaluation."""
        mean, variance = of
        if not self.training:
            return mean
        if teaching is None or teaching.seeds is None:
            draws = torch.randn_like(mean)
        else:
            aus = mean.shape[2]
            draws = noise.normal(teaching.seeds, stream, aus, self.latent).view_as(mean)
        return mean + variance.sqrt() * draws


def fused(numbers: Tensor) -> Gaussian:
    """The product of the scales' Gaussians, from (s, ..., 2Z): means and logarithms of variances."""
    mean, log_variance = numbers.chunk(2, dim=-1)
    precision = (-log_variance.clamp(*_LOG_VARIANCE)).exp()
    variance = 1 / precision.sum(0)
    return variance * (mean * precision).sum(0), variance


def divergence(q: Gaussian, p: Gaussian) -> Tensor:
    """KL(q || p) of each coordinate."""
    ratio = q[1] / p[1]
    return 0.5 * (ratio + (q[0] - p[0]).square() / p[1] - 1 - ratio.log())
