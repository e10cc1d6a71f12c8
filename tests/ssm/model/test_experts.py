"""Experts: equal to a slow loop over tokens, independent of the batch, noise a function of rows alone."""

from __future__ import annotations

import copy
from inspect import signature

import pytest
import timm
import tiny_model as tiny
import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from ssm.model import noise
from ssm.model.backbone import Backbone, Patches
from ssm.model.config import NOT_OPTIONS, BackboneConfig, ExpertsConfig
from ssm.model.experts import ExpertMlp, Routing, mlp_width
from ssm.model.nets.last_block import ClassTokenBlock

NEEDS_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def _layer(top: int = 2, seed: int = 0, *, width: int = 8, hidden: int = 8) -> ExpertMlp:
    torch.manual_seed(seed)
    config = ExpertsConfig(blocks=1, count=4, top=top, hidden=hidden, gate_gain=3.0, noise=0.5, scale=0.7)
    shared = nn.Sequential(nn.Linear(width, 12), nn.SiLU(), nn.Linear(12, width))
    layer = ExpertMlp(shared, width, config, block=0, routing=Routing(), released=False)
    with torch.no_grad():
        layer.b1.normal_()
        layer.b2.normal_()
    return layer


def _slow(layer: ExpertMlp, x: Tensor) -> Tensor:
    out = layer.shared(x).clone()
    weights = layer.gate(x).softmax(-1)
    for index in torch.cartesian_prod(*(torch.arange(n) for n in x.shape[:-1])):
        at = tuple(index.tolist())
        for expert in weights[at].topk(layer.config.top).indices:
            hidden = nn.functional.gelu(x[at] @ layer.w1[expert] + layer.b1[expert])
            out[at] = out[at] + layer.alpha * weights[at][expert] * (hidden @ layer.w2[expert] + layer.b2[expert])
    return out


@pytest.fixture(params=["segments", "dense"])
def layer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ExpertMlp:
    """A layer that computes as CPUs do, and as GPUs do."""
    monkeypatch.setattr("ssm.model.experts._dense_pays", lambda _: request.param != "segments")
    return _layer()


def test_equal_to_a_loop_over_tokens_forwards_and_backwards(layer: ExpertMlp) -> None:
    layer.eval()
    for layer.config in (layer.config.model_copy(update={"top": top}) for top in (1, 2, 4)):
        x = torch.randn(3, 5, 8, requires_grad=True)
        torch.testing.assert_close(layer(x), _slow(layer, x), atol=1e-5, rtol=1e-5)
        wanted = [x, *layer.parameters()]
        fast = torch.autograd.grad(layer(x).pow(2).sum(), wanted)
        slow = torch.autograd.grad(_slow(layer, x).pow(2).sum(), wanted)
        for mine, theirs in zip(fast, slow, strict=True):
            torch.testing.assert_close(mine, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_GPU)])
def test_gradients_in_bfloat16_are_those_of_a_loop_in_float64(layer: ExpertMlp, device: str) -> None:
    """Thousands of rows: summed in bfloat16 (as a gather's backward does), a bias's gradient is off by half."""
    layer = _layer(width=64, hidden=32).train().to(device)
    layer.config = layer.config.model_copy(update={"noise": 0.0})
    x = torch.randn(16, 256, 64, device=device).bfloat16().float().requires_grad_()
    exact, x64 = copy.deepcopy(layer).double(), x.detach().double().requires_grad_()
    want = _by_expert(exact, x64)
    upstream = (want.detach() + torch.randn_like(want)).bfloat16()  # as a squared loss gives
    want.backward(upstream.double())
    with torch.autocast(device, torch.bfloat16):
        out = layer(x)
    out.backward(upstream.to(out.dtype))
    for name, parameter in [("x", x), *layer.named_parameters()]:
        want = x64.grad if name == "x" else exact.get_parameter(name).grad
        assert parameter.grad is not None
        assert torch.linalg.vector_norm(parameter.grad - want) <= 1e-2 * torch.linalg.vector_norm(want), name


def _by_expert(layer: ExpertMlp, x: Tensor) -> Tensor:
    """`_slow` an expert at a time, for many tokens."""
    weights = layer.gate(x).softmax(-1)
    chosen = weights.topk(layer.config.top, dim=-1).indices
    out = layer.shared(x)
    for expert in range(layer.config.count):
        hidden = nn.functional.gelu(x @ layer.w1[expert] + layer.b1[expert])
        gate = weights[..., expert, None] * (chosen == expert).any(-1, keepdim=True)
        out = out + layer.alpha * gate * (hidden @ layer.w2[expert] + layer.b2[expert])
    return out


def test_an_expert_that_no_token_visits_still_has_a_gradient() -> None:
    layer = _layer(top=1)
    with torch.no_grad():
        layer.gate.weight.zero_()
        layer.gate.bias.copy_(torch.tensor([9.0, 0.0, 0.0, 0.0]))
    layer.eval()(torch.randn(2, 3, 8)).sum().backward()
    assert layer.w1.grad is not None
    assert layer.w1.grad[0].any()
    assert not layer.w1.grad[1:].any()


@pytest.mark.parametrize("config", [tiny.VIT, tiny.CONVNEXT, tiny.CONVNEXT_LINEAR], ids=lambda c: c.name)
def test_one_frame_alone_is_as_within_a_batch(config: BackboneConfig) -> None:
    torch.manual_seed(0)
    backbone = Backbone(config, 16).eval()
    frames = tiny.clips(2).flatten(0, 1)
    together = backbone(frames).pooled
    assert together.shape == (8, 16)
    for index in range(8):
        torch.testing.assert_close(backbone(frames[index : index + 1]).pooled[0], together[index], atol=1e-5, rtol=1e-5)
    assert sum(isinstance(module, ExpertMlp) for module in backbone.modules()) == 2


def test_experts_go_into_the_last_blocks_with_the_start_of_the_method() -> None:
    backbone = Backbone(tiny.VIT, 16)
    blocks = list(backbone.net.blocks)  # type: ignore[arg-type]
    assert [isinstance(block.mlp, ExpertMlp) for block in blocks] == [False, True, True]
    layer = blocks[-1].mlp
    assert layer.alpha.item() == pytest.approx(tiny.EXPERTS.scale)
    assert not layer.b1.any()
    assert not layer.gate.bias.any()
    bound = (6 / (32 + 16)) ** 0.5
    assert layer.w1.abs().max() <= bound
    assert layer.w1.abs().max() > 0.9 * bound
    assert layer.gate.weight.abs().max() <= 0.1 * (6 / (32 + 4)) ** 0.5
    assert ExpertsConfig().scale == 0.1


def test_noise_is_for_training_only_and_a_function_of_the_rows() -> None:
    layer = _layer()
    x = torch.randn(4, 5, 8)
    layer.train()
    layer.routing.seeds = noise.frame_seeds(torch.tensor([7, 9]), 2, key=3, side=0)
    whole = layer(x)
    assert torch.equal(layer(x), whole)
    layer.routing.seeds = noise.frame_seeds(torch.tensor([9]), 2, key=3, side=0)
    torch.testing.assert_close(layer(x[2:]), whole[2:], atol=1e-6, rtol=1e-6)
    layer.routing.seeds = noise.frame_seeds(torch.tensor([7, 9]), 2, key=4, side=0)
    assert not torch.equal(layer(x), whole)
    layer.eval()
    torch.testing.assert_close(layer(x), _slow(layer, x), atol=1e-5, rtol=1e-5)


def test_hashed_noise_is_normal_and_uncorrelated() -> None:
    seeds = noise.frame_seeds(torch.arange(500), 4, key=1, side=0)
    draws = noise.normal(seeds, block=2, tokens=10, experts=4)
    assert draws.shape == (2000, 10, 4)
    assert abs(draws.mean().item()) < 0.01
    assert abs(draws.std().item() - 1) < 0.01
    assert abs((draws**4).mean().item() - 3) < 0.1
    flat = draws.flatten(1)
    correlation = torch.corrcoef(flat.T) - torch.eye(40)
    assert correlation.abs().max() < 0.12
    assert abs(torch.corrcoef(torch.stack([flat[:-1].flatten(), flat[1:].flatten()]))[0, 1].item()) < 0.02
    for other in (
        noise.normal(seeds, block=3, tokens=10, experts=4),
        noise.normal(noise.frame_seeds(torch.arange(500), 4, key=2, side=0), 2, 10, 4),
        noise.normal(noise.frame_seeds(torch.arange(500), 4, key=1, side=1), 2, 10, 4),
    ):
        assert abs(torch.corrcoef(torch.stack([other.flatten(), draws.flatten()]))[0, 1].item()) < 0.02


def test_rows_beyond_32_bits_get_noise_of_their_own() -> None:
    seeds = noise.frame_seeds(torch.tensor([5, 5 + 2**32, 5 + 2**40]), 1, key=0, side=0)
    assert seeds.unique().numel() == 3


def test_what_cannot_hold_experts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"has 3 blocks with an `.mlp`; backbone.experts.blocks asks for 4"):
        Backbone(tiny.VIT.model_copy(update={"experts": ExpertsConfig(blocks=4)}), 16)
    with pytest.raises(ValueError, match="holds no linear map"):
        mlp_width(nn.Identity())
    with pytest.raises(ValueError, match="top is 5"):
        ExpertsConfig(top=5)
    with pytest.raises(ValueError, match="not a timm model"):
        Backbone(BackboneConfig(name="no_such_net"), 16)
    with pytest.raises(ValueError, match=r"could not build backbone 'vit_tiny_patch16_224'.*nonsense"):
        Backbone(tiny.VIT.model_copy(update={"options": {"nonsense": 1}}), 16)


@pytest.mark.parametrize("name", sorted(NOT_OPTIONS))
def test_options_hold_no_argument_of_create_model(name: str) -> None:
    with pytest.raises(ValueError, match=f"backbone.options holds '{name}', an argument of timm.create_model"):
        BackboneConfig(options={name: "x"})


def test_every_argument_of_the_installed_timm_is_known() -> None:
    taken = [*signature(timm.create_model).parameters, *signature(timm.models.build_model_with_cfg).parameters]
    assert set(taken) - {"kwargs"} <= NOT_OPTIONS


def test_patches_by_a_product_are_the_convolution() -> None:
    torch.manual_seed(0)
    convolution, frames = nn.Conv2d(3, 12, 4, 4), torch.randn(2, 3, 18, 13)
    patches = Patches(convolution)
    assert torch.equal(patches(frames), convolution(frames))
    torch.testing.assert_close(patches.by_product(frames), convolution(frames), atol=1e-5, rtol=1e-5)
    for config in (tiny.VIT, tiny.CONVNEXT):
        assert sum(isinstance(module, Patches) for module in Backbone(config, 16).modules()) == 1


def test_the_class_token_alone_is_as_with_the_others() -> None:
    """Output, gradients and noise of a ViT whose last block computes the one token that is read."""
    torch.manual_seed(0)
    alone = Backbone(tiny.VIT, 16).train()
    last = list(alone.net.blocks)[-1]  # type: ignore[arg-type]
    assert isinstance(last, ClassTokenBlock)
    whole = copy.deepcopy(alone)
    list(whole.net.blocks)[-1].__class__ = Block  # type: ignore[arg-type]
    frames, seeds = tiny.clips(2).flatten(0, 1), noise.frame_seeds(torch.tensor([3, 4]), tiny.FRAMES, key=5, side=0)
    outputs = [net(frames, seeds).pooled for net in (alone, whole)]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-5)
    mine, theirs = (
        torch.autograd.grad(out.square().sum(), list(net.parameters()), allow_unused=True)
        for out, net in zip(outputs, (alone, whole), strict=True)
    )
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
    assert not any(isinstance(m, ClassTokenBlock) for m in Backbone(tiny.VIT, 16, released=True).modules())
