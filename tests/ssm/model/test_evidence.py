"""Beta evidence: what it says, that it undoes the loss's asymmetry, and the reader against slow float64 loops."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import tiny_model as tiny
import torch
from torch.nn import functional

from ssm.model.config import AUReaderConfig, FocusConfig, TextConfig
from ssm.model.readers.evidence import Evidence
from ssm.training.losses.beta import beta_losses

PLAIN = FocusConfig(negative=0.0)


def _evidence(alpha: float, beta: float) -> Evidence:
    return Evidence(torch.tensor(alpha, dtype=torch.float64), torch.tensor(beta, dtype=torch.float64))


def test_no_evidence_is_one_half_and_full_vacuity() -> None:
    none = _evidence(1.0, 1.0)
    assert (none.probability, none.vacuity, none.logit) == (0.5, 1.0, 0.0)
    much = _evidence(30.0, 10.0)
    torch.testing.assert_close(sum(much.beliefs) + much.vacuity, torch.tensor(1.0, dtype=torch.float64))
    beta = torch.distributions.Beta(much.alpha, much.beta)
    torch.testing.assert_close(much.probability, beta.mean)
    torch.testing.assert_close(much.variance, beta.variance)


def test_the_sigmoid_of_the_logit_is_the_probability() -> None:
    scores = torch.linspace(-12, 12, 49)
    evidence = Evidence.from_scores(scores[:, None], scores[None])
    torch.testing.assert_close(evidence.logit.sigmoid(), evidence.probability, rtol=3e-7, atol=1e-7)
    assert torch.equal(evidence.untilted(PLAIN), evidence.logit)


@pytest.mark.parametrize("focus", [(0, 1, 0), (1, 4, 0), (2, 0, 0), (0, 2, 0.03)])
@pytest.mark.parametrize("rate", [0.05, 0.3, 0.8])
def test_untilting_inverts_what_the_loss_does(focus: tuple[float, float, float], rate: float) -> None:
    """Bisected: the p at which an asymmetric log loss of events of this rate has no slope."""
    positive, negative, shift = focus

    def slope(p: float) -> float:
        return -rate * (1 - p) ** positive / p + (1 - rate) * max(p - shift, 0) ** negative / (1 - p)

    low, high = 1e-9, 1 - 1e-9
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    config = FocusConfig(positive=positive, negative=negative, shift=shift)
    found = _evidence(1e9 * low, 1e9 * (1 - low)).untilted(config).sigmoid()
    assert float(found) == pytest.approx(rate, abs=1e-6)


def test_untilting_gives_the_figures_of_the_page() -> None:
    focus = FocusConfig()
    assert float(_evidence(0.205e9, 0.795e9).untilted(focus).sigmoid()) == pytest.approx(0.05, abs=1e-3)
    assert float(_evidence(1e9, 1e9).untilted(focus).sigmoid()) == pytest.approx(1 / 3, abs=1e-6)
    asl = FocusConfig(positive=1, negative=4)
    assert float(_evidence(0.44e9, 0.56e9).untilted(asl).sigmoid()) == pytest.approx(0.05, abs=5e-3)
    assert float(_evidence(1e9, 1e9).untilted(asl).sigmoid()) == pytest.approx(1 / 9, abs=1e-6)


@pytest.mark.parametrize("focus", [(0, 1, 0), (1, 4, 0), (2, 0, 0), (0, 2, 0.03)])
@pytest.mark.parametrize("seen", [(0, 40), (3, 57), (50, 50), (9, 1)])
def test_doubt_counts_what_was_seen_whole(focus: tuple[float, float, float], seen: tuple[int, int]) -> None:
    """Presences and absences counted with their weights, over and over until p is that of its own weights."""
    positive, negative, shift = focus
    alpha, beta = 1.0, 1.0
    for _ in range(2000):
        p = alpha / (alpha + beta)
        alpha += (1 + seen[0] * (1 - p) ** positive - alpha) / 2
        beta += (1 + seen[1] * max(p - shift, 0) ** negative - beta) / 2
    config = FocusConfig(positive=positive, negative=negative, shift=shift)
    assert float(_evidence(alpha, beta).doubt(config)) == pytest.approx(2 / (2 + sum(seen)), rel=1e-9)


def test_doubt_without_a_focus_is_the_vacuity_and_full_without_evidence() -> None:
    assert float(_evidence(7.0, 3.0).doubt(PLAIN)) == float(_evidence(7.0, 3.0).vacuity) == pytest.approx(2 / 10)
    for focus in (PLAIN, FocusConfig(), FocusConfig(positive=1, negative=4, shift=0.3)):
        assert float(_evidence(1.0, 1.0).doubt(focus)) == 1
        assert 0 < float(_evidence(1.0, 1e6).doubt(focus)) < 1e-5


@pytest.mark.parametrize("rate", [0.05, 0.5, 0.9])
def test_a_constant_model_recovers_the_rate(rate: float) -> None:
    """Two scores fitted to the expected loss of Bernoulli(rate), from much evidence."""
    scores = torch.tensor([300.0, 300.0], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([scores], lr=1.0)
    target = torch.tensor([1.0, 0.0], dtype=torch.float64)
    shares = torch.tensor([rate, 1 - rate], dtype=torch.float64)
    for number in range(600):
        for group in optimizer.param_groups:
            group["lr"] = 3.0 * 0.99**number
        optimizer.zero_grad()
        evidence = Evidence.from_scores(scores[0], scores[1])
        (shares * beta_losses(evidence.pairs, target, FocusConfig())).sum().backward()
        optimizer.step()
    assert float(evidence.untilted(FocusConfig()).sigmoid().detach()) == pytest.approx(rate, abs=1e-2)


def test_the_reader_is_its_equations() -> None:
    """Loops in float64 over clips, frames and AUs, from the features that the other parts give."""
    reader = AUReaderConfig(kind="evidential", focus=FocusConfig(positive=0.5, negative=2, shift=0.02))
    model = tiny.small_model(tiny.with_text().model_copy(update={"au_reader": reader})).fold().double()
    clips = tiny.clips(2).double()
    output = model(au_clips=clips)
    assert model.smoothing is None
    with torch.no_grad():
        x = model.au_time(model.encode_clips(clips).pooled)
    texts, weight, bias = model.prototypes().aus, model.au_head.evidence.weight.data, model.au_head.evidence.bias.data
    for clip in range(2):
        for frame in range(tiny.FRAMES):
            for au in range(len(tiny.LABELS.aus)):
                f = x[clip, frame]
                s = 0.1 * float(f @ texts[au] / f.norm()) / 0.01
                plus, minus = (float(weight[2 * au + i] @ f + bias[2 * au + i]) for i in (0, 1))
                alpha = 1 + math.log1p(math.exp(plus + s / 2))
                beta = 1 + math.log1p(math.exp(minus - s / 2))
                p = alpha / (alpha + beta)
                odds = p * max(p - 0.02, 0) ** 2 / (1 - p) ** 1.5
                place = (clip, frame, au)
                assert output.au_evidence[place].tolist() == pytest.approx([alpha, beta], rel=1e-9)
                assert float(output.au_semantic_logits[place]) == pytest.approx(s, rel=1e-9)
                assert float(output.au_logits[place].sigmoid()) == pytest.approx(odds / (1 + odds), rel=1e-9)


def test_without_texts_there_is_no_semantic_part() -> None:
    config = tiny.small_config().model_copy(update={"au_reader": AUReaderConfig(kind="evidential")})
    output = tiny.small_model(config.model_copy(update={"text": TextConfig(tower=None)})).eval()(au_clips=tiny.clips(1))
    assert output.au_semantic_logits is None
    assert output.au_evidence is not None


def test_mean_evidence_is_of_the_evidence_and_not_of_the_scores() -> None:
    pairs = 1 + torch.rand(2, 3, 4, 2)
    mean = Evidence.of(pairs).averaged(1)
    torch.testing.assert_close(mean.pairs, pairs.mean(1))
    assert functional.softplus(torch.tensor(0.0)) > 0  # so no evidence at all is a limit, not a start
    assert replace(mean, alpha=torch.ones(1)).alpha == 1
