"""Tokens out of the backbone: one pass, the pooled row untouched, a grid or a refusal."""

from __future__ import annotations

import pytest
import tiny_model as tiny
import torch

from ssm.model import noise
from ssm.model.backbone import Backbone
from ssm.model.config import BackboneConfig

PLAIN = BackboneConfig(name="plain_cnn", image_size=32, options={"channels": (8, 12)}, experts=None)
SWIN = BackboneConfig(
    name="swin_tiny_patch4_window7_224", image_size=224, experts=None,
    options={"embed_dim": 8, "depths": (1, 1), "num_heads": (1, 1)},
)  # fmt: skip


@pytest.mark.parametrize("config", [tiny.VIT, tiny.CONVNEXT, tiny.CONVNEXT_LINEAR, SWIN, PLAIN], ids=lambda c: c.name)
def test_patches_come_from_the_pass_that_gives_the_pooled_row(config: BackboneConfig) -> None:
    torch.manual_seed(0)
    backbone = Backbone(config, 16, tokens=True).eval()
    frames = torch.randn(3, 3, config.image_size, config.image_size)
    features = backbone(frames)
    assert torch.equal(features.pooled, backbone.net(frames))
    down, across = backbone.grid
    assert features.tokens.shape == (3, down * across, 16)


@pytest.mark.parametrize("start", [0, 3, 8])
def test_patches_of_some_frames_are_as_those_of_all_noise_included(start: int) -> None:
    torch.manual_seed(0)
    backbone = Backbone(tiny.VIT, 16, tokens=True).train()
    frames = tiny.clips(2).flatten(0, 1)
    seeds = noise.frame_seeds(torch.tensor([3, 4]), tiny.FRAMES, key=5, side=0)
    whole, some = backbone(frames, seeds), backbone(frames, seeds, patches_from=start)
    assert torch.equal(whole.pooled, some.pooled)
    if start == len(frames):
        assert some.tokens is None
    else:
        torch.testing.assert_close(some.tokens, whole.tokens[start:], atol=1e-6, rtol=1e-6)
    one, other = some.split([3, 5])
    assert (one.tokens is None) == (start >= 3)
    assert other.tokens is None or len(other.tokens) == 5


def test_patches_lie_row_by_row() -> None:
    """A change in one patch of a net that mixes no patches changes that token and no other."""
    torch.manual_seed(0)
    config = tiny.VIT.model_copy(update={"options": {**tiny.VIT.options, "depth": 1}, "experts": None})
    backbone = Backbone(config, 16, tokens=True).eval()
    with torch.no_grad():
        backbone.net.blocks[0].attn.proj.weight.zero_()
    frames = torch.randn(1, 3, 32, 32)
    other = frames.clone()
    side = 32 // backbone.grid[1]
    other[:, :, :side, -side:] += 1
    moved = (backbone(frames).tokens != backbone(other).tokens).any(-1)[0].view(backbone.grid)
    assert moved.nonzero().tolist() == [[0, backbone.grid[1] - 1]]


def test_the_published_backbone_has_196_patches() -> None:
    config = BackboneConfig(image_size=224, options={"depth": 1, "embed_dim": 24, "num_heads": 2}, experts=None)
    backbone = Backbone(config, 16, tokens=True)
    assert backbone.grid == (14, 14)


@pytest.mark.parametrize("name", ["mixer_s32_224", "pit_ti_224"])
def test_a_backbone_without_a_grid_is_refused_by_name(name: str) -> None:
    config = BackboneConfig(name=name, image_size=224, experts=None)
    with pytest.raises(ValueError, match=rf"backbone '{name}' gives no patches .* take a vision transformer"):
        Backbone(config, 16, tokens=True)


def test_features_of_unit_size_are_those_of_the_net_standardised() -> None:
    torch.manual_seed(0)
    plain = Backbone(tiny.VIT, 16, tokens=True).eval()
    units = Backbone(tiny.VIT.model_copy(update={"unit_features": True}), 16, tokens=True).eval()
    units.load_state_dict(plain.state_dict())  # it has no weights of its own
    frames = tiny.clips(2).flatten(0, 1)
    before, after = plain(frames), units(frames)
    for raw, found in ((before.pooled, after.pooled), (before.tokens, after.tokens)):
        raw = raw.double()
        wanted = (raw - raw.mean(-1, keepdim=True)) / (raw.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        torch.testing.assert_close(found.double(), wanted, atol=1e-4, rtol=1e-4)


def test_mirrored_features_are_the_same_for_a_picture_and_its_mirror_image() -> None:
    torch.manual_seed(0)
    plain = Backbone(tiny.VIT, 16, tokens=True).eval()
    both = Backbone(tiny.VIT.model_copy(update={"mirrored": True}), 16, tokens=True).eval()
    both.load_state_dict(plain.state_dict())
    frames = tiny.clips(2).flatten(0, 1)
    one, other, found, turned = plain(frames), plain(frames.flip(-1)), both(frames), both(frames.flip(-1))
    torch.testing.assert_close(found.pooled, (one.pooled + other.pooled) / 2)
    torch.testing.assert_close(found.pooled, turned.pooled)
    assert plain.grid is not None
    maps = [features.tokens.unflatten(1, plain.grid) for features in (one, other, found, turned)]  # type: ignore[union-attr]
    torch.testing.assert_close(maps[2], (maps[0] + maps[1].flip(2)) / 2)
    torch.testing.assert_close(maps[2], maps[3].flip(2))
    alone = both(frames, patches_from=1)  # patches of some frames only
    assert found.tokens is not None
    torch.testing.assert_close(alone.tokens, found.tokens[1:])
    seeds = torch.arange(len(frames))
    torch.testing.assert_close(both.train()(frames, seeds).pooled, plain.train()(frames, seeds).pooled)
