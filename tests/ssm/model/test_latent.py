"""The latent variable: fusion and divergence against torch.distributions, labels that never leak, noise by rows."""

from __future__ import annotations

import pytest
import tiny_model as tiny
import torch
from torch.distributions import Normal, kl_divergence

from ssm import SSM
from ssm.model.config import AUReaderConfig, LatentConfig
from ssm.model.readers.base import AUReading
from ssm.model.readers.latent import divergence, fused
from ssm.model.readers.scales import band_shares, windowed

AUS, T = len(tiny.LABELS.aus), tiny.FRAMES
READER = AUReaderConfig(kind="cvae_evidential", latent=LatentConfig(hidden=8, width=3))


@pytest.fixture(scope="module")
def model() -> SSM:
    """Away from its start, so that labels and noise show."""
    model = tiny.small_model(tiny.with_text().model_copy(update={"au_reader": READER}))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return model


def _labels(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, 2, (2, T, AUS), generator=generator).float()
    return {"au_targets": targets, "au_known": torch.ones_like(targets)}


def test_scales_fuse_as_a_product_of_gaussians() -> None:
    """On a fine grid, the normalised product of the scales' densities has the fused mean and variance."""
    torch.manual_seed(0)
    numbers = torch.randn(3, 2, dtype=torch.float64)
    grid = torch.linspace(-15, 15, 200_001, dtype=torch.float64)
    density = sum(Normal(m, (v / 2).exp()).log_prob(grid) for m, v in numbers).exp()
    density /= density.sum()
    mean, variance = fused(numbers)
    torch.testing.assert_close(mean[0], (density * grid).sum())
    torch.testing.assert_close(variance[0], (density * (grid - mean[0]) ** 2).sum())
    one = fused(numbers[:1])
    torch.testing.assert_close(torch.cat(one), torch.stack([numbers[0, 0], numbers[0, 1].exp()]))
    assert float(fused(torch.tensor([[0.0, 99.0]]))[1]) == pytest.approx(54.598, rel=1e-4)  # e^4


def test_the_divergence_is_that_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    q, p = ((torch.randn(9, generator=generator), torch.rand(9, generator=generator) + 0.1) for _ in range(2))
    expected = kl_divergence(Normal(q[0], q[1].sqrt()), Normal(p[0], p[1].sqrt()))
    torch.testing.assert_close(divergence(q, p), expected)


def test_windows_and_bands_are_means_of_what_is_there() -> None:
    x = torch.randn(2, 5, 3)
    found = windowed(x, 3)
    for frame in range(5):
        torch.testing.assert_close(found[:, frame], x[:, max(0, frame - 1) : frame + 2].mean(1))
    assert torch.equal(windowed(x, 1), x)
    shares = band_shares((1, 6, 12), (14, 2)).view(3, 14, 2)
    assert [rows.any(1).nonzero()[:, 0].tolist() for rows in shares] == [
        list(range(6)), list(range(4, 10)), list(range(8, 14))
    ]  # fmt: skip
    torch.testing.assert_close(shares.sum((1, 2)), torch.ones(3))
    assert band_shares((1, 6, 12), (1, 2)).tolist() == [[0.5, 0.5]] * 3


def test_evaluation_does_not_see_labels(model: SSM) -> None:
    model.eval()
    with torch.no_grad():
        plain = model(au_clips=tiny.clips(2))
        given = model(au_clips=tiny.clips(2), **_labels(0), au_row_ids=torch.arange(2), noise_key=1)
    assert torch.equal(plain.au_logits, given.au_logits)
    assert torch.equal(plain.au_evidence, given.au_evidence)
    assert given.au_posterior is None
    assert given.au_divergence is None
    assert (plain.au_variance > 0).all()


def test_the_posterior_hears_of_other_aus(model: SSM) -> None:
    model.train()
    rows = {"au_row_ids": torch.arange(2), "noise_key": 1}
    labels, changed = _labels(0), _labels(0)
    changed["au_targets"][..., 0] = 1 - changed["au_targets"][..., 0]
    one, other = (model(au_clips=tiny.clips(2), **given, **rows) for given in (labels, changed))
    assert torch.equal(one.au_evidence, other.au_evidence), "what the picture says has not seen them"
    assert (one.au_posterior[:, :, 1:] != other.au_posterior[:, :, 1:]).any(-1).all()
    unknown = _labels(0) | {"au_known": torch.zeros(2, T, AUS)}
    hidden = [
        model(au_clips=tiny.clips(2), **one, **rows)
        for one in (unknown, unknown | changed | {"au_known": unknown["au_known"]})
    ]
    assert torch.equal(hidden[0].au_posterior, hidden[1].au_posterior), "an unknown label says nothing"


def test_at_the_start_labels_add_nothing() -> None:
    fresh = tiny.small_model(tiny.with_text().model_copy(update={"au_reader": READER})).train()
    assert not fresh(au_clips=tiny.clips(2), **_labels(0)).au_divergence.any()


def test_noise_follows_the_rows_and_not_the_cut(model: SSM) -> None:
    model.train()
    clips, rows, labels = tiny.clips(2), torch.tensor([7, 4]), _labels(0)
    whole = model(au_clips=clips, au_row_ids=rows, noise_key=5, **labels)
    for row in range(2):
        part = {name: value[row : row + 1] for name, value in labels.items()}
        alone = model(au_clips=clips[row : row + 1], au_row_ids=rows[row : row + 1], noise_key=5, **part)
        torch.testing.assert_close(alone.au_posterior[0], whole.au_posterior[row], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(alone.au_logits[0], whole.au_logits[row], atol=1e-4, rtol=1e-4)
    again = model(au_clips=clips, au_row_ids=rows, noise_key=6, **labels)
    assert not torch.allclose(again.au_logits, whole.au_logits, atol=1e-3)


def test_draws_in_evaluation_are_the_same_for_every_clip_and_average_evidence(model: SSM) -> None:
    """Against the readings of single draws, and not of the mean; a clip's answer does not depend on its batch."""
    reader = READER.model_copy(update={"latent": READER.latent.model_copy(update={"samples": 4})})
    drawing = tiny.small_model(tiny.with_text().model_copy(update={"au_reader": reader})).eval()
    drawing.load_state_dict(model.state_dict())
    clips = tiny.clips(2)
    found: list[torch.Tensor] = []
    answer = drawing.au_head._answer

    def heard(*given: torch.Tensor) -> AUReading:
        found.append(answer(*given).evidence)
        return answer(*given)

    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing.au_head, "_answer", heard)
        whole = drawing(au_clips=clips)
        torch.testing.assert_close(whole.au_evidence, torch.stack(found).mean(0))
        assert len(found) == 4
        torch.testing.assert_close(drawing(au_clips=clips[1:]).au_evidence[0], whole.au_evidence[1])
        assert torch.equal(drawing(au_clips=clips).au_evidence, whole.au_evidence)
        assert not torch.allclose(whole.au_evidence, model.eval()(au_clips=clips).au_evidence, rtol=1e-3)
        torch.testing.assert_close(whole.au_variance, model(au_clips=clips).au_variance)
