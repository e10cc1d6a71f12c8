"""Time: smoothing keeps constants, attention starts as the identity and is local, the clip's feature is the formula."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ssm.model.config import AUTimeConfig, ExpressionTimeConfig
from ssm.model.temporal import AUSmoothing, ExpressionTime, LocalFrameAttention


def _learned(module: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    return module


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.floats(-5, 5, width=32), st.booleans())
def test_a_constant_stays_constant(frames: int, value: float, learned: bool) -> None:
    smoothing = AUSmoothing(3, AUTimeConfig(), released=False)
    if learned:
        _learned(smoothing)
    smooth = smoothing(torch.full((2, frames, 3), value))
    want = value * smoothing.weight.sum(-1).view(1, 1, 3).expand_as(smooth)
    torch.testing.assert_close(smooth, want, atol=1e-5, rtol=1e-5)
    if not learned:
        torch.testing.assert_close(smooth, torch.full_like(smooth, value), atol=1e-5, rtol=1e-5)


def test_smoothing_runs_over_the_whole_clip_and_released_over_pairs() -> None:
    impulse = torch.zeros(1, 12, 1)
    impulse[0, 6] = 1
    ours = AUSmoothing(1, AUTimeConfig(), released=False)(impulse).flatten()
    assert ours.nonzero().flatten().tolist() == [4, 5, 6, 7, 8]
    theirs = AUSmoothing(1, AUTimeConfig(), released=True)(impulse).flatten()
    torch.testing.assert_close(theirs[6:8], torch.tensor([0.2, 0.2]))
    assert theirs.nonzero().flatten().tolist() == [6, 7]
    with pytest.raises(ValueError, match="even number of frames; got 5"):
        AUSmoothing(1, AUTimeConfig(), released=True)(torch.zeros(1, 5, 1))


def test_attention_starts_as_the_identity() -> None:
    x = torch.randn(2, 7, 16)
    assert torch.equal(LocalFrameAttention(16, AUTimeConfig(heads=2))(x), x)


def _slow_attention(module: LocalFrameAttention, x_BTD: Tensor) -> Tensor:
    """The formula by loops over frames and heads."""
    normed = module.norm(x_BTD)
    q, k = module.q(normed), module.k(normed)
    width = x_BTD.shape[-1] // module.heads
    out = x_BTD.clone()
    for clip in range(len(x_BTD)):
        for i in range(x_BTD.shape[1]):
            for head in range(module.heads):
                part = slice(head * width, (head + 1) * width)
                near = [j for j in range(x_BTD.shape[1]) if abs(i - j) <= module.radius]
                scores = torch.stack([
                    q[clip, i, part] @ k[clip, j, part] * width**-0.5 + module.bias[head, j - i + module.radius]
                    for j in near
                ])  # fmt: skip
                context = scores.softmax(0) @ x_BTD[clip, near, part]
                gate = module.strength * module.channel_gate[part].tanh()
                out[clip, i, part] = x_BTD[clip, i, part] + gate * (context - x_BTD[clip, i, part])
    return out


@pytest.mark.parametrize(("frames", "radius"), [(1, 1), (2, 1), (6, 1), (6, 2)])
def test_attention_equals_the_slow_formula(frames: int, radius: int) -> None:
    module = LocalFrameAttention(8, AUTimeConfig(heads=2, radius=radius))
    _learned(module)
    x = torch.randn(2, frames, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(module(x), _slow_attention(module, x), atol=1e-5, rtol=1e-5)


def test_an_au_logit_depends_on_its_neighbourhood_only() -> None:
    """Three frames either side: one by attention, two by smoothing. Windows with that overlap change nothing."""
    attention, smoothing = LocalFrameAttention(8, AUTimeConfig(heads=2)), AUSmoothing(8, AUTimeConfig(), released=False)
    _learned(attention)
    x = torch.randn(1, 40, 8, generator=torch.Generator().manual_seed(1))
    whole = smoothing(attention(x))
    window = smoothing(attention(x[:, 10 : 20 + 3]))
    torch.testing.assert_close(window[:, 3:10], whole[:, 13:20], atol=1e-5, rtol=1e-5)


def test_the_clip_feature_is_the_transformer_layer_of_the_method() -> None:
    module = ExpressionTime(16, 4, ExpressionTimeConfig(heads=2, head_width=8, hidden=32))
    _learned(module)
    x = torch.randn(3, 4, 16, generator=torch.Generator().manual_seed(1))
    tokens = torch.cat([module.cls.expand(3, -1, -1), x], 1) + module.positions
    q, k, v = module.qkv(module.norm1(tokens)).chunk(3, -1)
    heads = [
        (q[..., s] @ k[..., s].transpose(1, 2) * 8**-0.5).softmax(-1) @ v[..., s] for s in (slice(0, 8), slice(8, 16))
    ]
    after = tokens + module.out(torch.cat(heads, -1))
    after = after + module.fc2(torch.nn.functional.gelu(module.fc1(module.norm2(after)), approximate="tanh"))
    want = module.norm(after[:, 0] + module.residual * tokens[:, 0])
    torch.testing.assert_close(module(x), want, atol=1e-5, rtol=1e-5)
