"""Losses of Beta evidence: against scipy, Monte Carlo and torch.distributions, and what masks and labels do to them."""

from __future__ import annotations

import math

import pytest
import tiny_training as tiny
import torch
from scipy import special
from torch import Tensor
from torch.distributions import Beta, kl_divergence

from ssm.model.config import AUReaderConfig, FocusConfig
from ssm.model.readers.evidence import Evidence
from ssm.training.losses.beta import beta_loss, beta_losses, divergence_from_ignorance, misleading
from ssm.training.losses.config import LossConfig, rise
from ssm.training.losses.table import losses_of

PLAIN = FocusConfig(negative=0.0)


def _some(*shape: int, most: float = 20.0) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return 1 + most * torch.rand(*shape, 2, generator=generator, dtype=torch.float64)


def test_without_evidence_the_plain_loss_is_exactly_one() -> None:
    none = torch.ones(2, 2, dtype=torch.float64)
    ones = pytest.approx([1.0, 1.0], rel=0, abs=1e-15)  # psi(2) - psi(1), to the last digit that digamma has
    assert beta_losses(none, torch.tensor([0.0, 1.0]), PLAIN).tolist() == ones


def test_the_loss_is_the_expected_cross_entropy_and_its_focusing() -> None:
    """Loops with scipy's digamma; soft targets."""
    pairs, targets = _some(30), torch.rand(30, dtype=torch.float64)
    focus = FocusConfig(positive=1.5, negative=4, shift=0.05)
    found, plain = beta_losses(pairs, targets, focus), beta_losses(pairs, targets, PLAIN)
    marginal = beta_losses(pairs, targets, PLAIN, "type2")
    for i, ((a, b), y) in enumerate(zip(pairs.tolist(), targets.tolist(), strict=True)):
        c_plus, c_minus = (special.psi(a + b) - special.psi(x) for x in (a, b))
        p = a / (a + b)
        assert float(plain[i]) == pytest.approx(y * c_plus + (1 - y) * c_minus, rel=1e-12)
        expected = (1 - p) ** 1.5 * y * c_plus + max(p - 0.05, 0) ** 4 * (1 - y) * c_minus
        assert float(found[i]) == pytest.approx(expected, rel=1e-12)
        by_marginal = y * math.log((a + b) / a) + (1 - y) * math.log((a + b) / b)
        assert float(marginal[i]) == pytest.approx(by_marginal, rel=1e-12)


def test_the_expectation_is_that_of_draws() -> None:
    pair = torch.tensor([3.0, 7.0])
    torch.manual_seed(0)
    draws = Beta(*pair).sample((200_000,))
    for target, of in ((1.0, -draws.log()), (0.0, -(1 - draws).log())):
        assert float(beta_losses(pair, torch.tensor(target), PLAIN)) == pytest.approx(float(of.mean()), abs=1e-2)


def test_with_much_evidence_it_is_the_asymmetric_log_loss() -> None:
    for total in (1e2, 1e4):
        p = torch.linspace(0.1, 0.9, 9, dtype=torch.float64)
        pairs, focus = torch.stack([total * p, total * (1 - p)], -1), FocusConfig(positive=1, negative=4)
        for target, limit in ((1.0, -(1 - p) * p.log()), (0.0, -(p**4) * (1 - p).log())):
            found = beta_losses(pairs, torch.full_like(p, target), focus)
            assert float((found - limit).abs().max()) < 10 / total


def test_the_focus_has_no_gradient() -> None:
    scores = torch.tensor([0.3, -0.7], dtype=torch.float64, requires_grad=True)

    def gradient(focus: FocusConfig) -> torch.Tensor:
        pair = Evidence.from_scores(scores[0], scores[1]).pairs
        return torch.autograd.grad(beta_losses(pair, torch.tensor(0.0), focus), scores)[0]

    p = float(Evidence.from_scores(scores[0], scores[1]).probability.detach())
    torch.testing.assert_close(gradient(FocusConfig(negative=2)), p**2 * gradient(PLAIN))


def test_the_regulariser_is_the_divergence_from_the_uniform() -> None:
    pairs = _some(50)
    ones = torch.ones(50, dtype=torch.float64)
    found = divergence_from_ignorance(pairs)
    torch.testing.assert_close(found, kl_divergence(Beta(*pairs.unbind(-1)), Beta(ones, ones)))
    assert (found >= 0).all()
    assert divergence_from_ignorance(torch.ones(2)).item() == 0
    torch.manual_seed(0)
    one = Beta(torch.tensor(4.0), torch.tensor(2.0))
    draws = one.log_prob(one.sample((200_000,))).mean()
    of = divergence_from_ignorance(torch.tensor([4.0, 2.0]))
    assert float(of) == pytest.approx(float(draws), abs=1e-2)


def test_only_misleading_evidence_is_regularised() -> None:
    pair = _some()
    alpha, beta = pair.tolist()
    present, absent, soft = (misleading(pair, torch.tensor(y)).tolist() for y in (1.0, 0.0, 0.25))
    assert present == [1, beta]
    assert absent == [alpha, 1]
    assert soft == pytest.approx([0.25 + 0.75 * alpha, 0.75 + 0.25 * beta], rel=1e-12)


def test_what_is_not_labelled_has_a_gradient_of_exactly_zero() -> None:
    scores = torch.randn(2, 3, 4, 2, requires_grad=True)
    weights = (torch.rand(2, 3, 4) > 0.5).float()
    pairs = Evidence.from_scores(scores[..., 0], scores[..., 1]).pairs
    targets = torch.rand(2, 3, 4)
    kl = (weights * divergence_from_ignorance(misleading(pairs, targets))).sum()
    (beta_loss(pairs, targets, weights, FocusConfig()) + kl).backward()
    assert (scores.grad[weights == 0] == 0).all()
    assert (scores.grad[weights > 0] != 0).all()


def test_a_run_has_the_losses_of_its_reader() -> None:
    config = LossConfig()
    names = {
        kind: [loss.name for loss in losses_of(config, tiny.tiny_model(au_reader=AUReaderConfig(kind=kind)))][4:]
        for kind in ("linear", "evidential", "cvae_evidential")
    }
    assert names == {
        "linear": [], "evidential": ["au_regulariser"], "cvae_evidential": ["au_regulariser", "au_divergence"]
    }  # fmt: skip
    assert [rise(p, 1 / 3) for p in (0.0, 1 / 6, 1 / 3, 1.0)] == [0.0, 0.5, 1.0, 1.0]


def test_a_step_weighs_the_regulariser_beside_the_au_loss() -> None:
    """Both are divided by the AU loss's running mean, so that the weight is what it says."""
    step = tiny.tiny_step(au_reader=AUReaderConfig(kind="evidential"))
    result = step(tiny.fe_batch(0), tiny.au_batch(0), 10, 20).floats()
    fe, semantic = 1.0, sum(
        loss.weight(step.config.loss, 0.5) for loss in step.losses if loss.name.endswith("semantic")
    )  # fmt: skip
    expected = (fe + 2 * (1 + 0.1 * result["loss/au_regulariser"] / result["loss/au"])) / 3 + semantic
    assert result["total"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["hiva", "cvae_evidential"])
def test_weights_of_clips_are_not_learned_where_patches_are_read(kind: str) -> None:
    reader = AUReaderConfig.model_validate({"kind": kind, "graph": {"heads": 2}})
    with pytest.raises(ValueError, match=rf"'{kind}' reads patches too: take 'linear' or 'evidential'"):
        tiny.tiny_step(tiny.fast_with(sample_weighting="mal"), au_reader=reader)


def test_weights_of_clips_are_learned_beside_evidence() -> None:
    step = tiny.tiny_step(tiny.fast_with(sample_weighting="mal"), au_reader=AUReaderConfig(kind="evidential"))
    assert tiny.train(step, range(2))[-1].floats()["total"] > 0
