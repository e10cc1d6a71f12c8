"""SSM: shared backbone, textual prototypes, prior mapping, temporal parts and two heads (arXiv 2604.10541).

Takes an FE side, an AU side or both and pays for what it is given. Knows no device, rank, file or Ray.
Letters: B clips, T frames, S image size, D width, A action units, E expressions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self, cast

import torch
from torch import Tensor, nn

from ssm.labels import Vocabulary
from ssm.model import noise
from ssm.model.affect import FeatureAffect, LabelAffect
from ssm.model.backbone import Backbone, FrameFeatures
from ssm.model.config import ModelConfig
from ssm.model.heads import ClipOfFrames, SemanticHead
from ssm.model.mapping import Maps, PriorMapping
from ssm.model.readers import AUInputs, AUReading, AUTeaching, Texts, reader_class
from ssm.model.temporal import AUSmoothing, ExpressionTime, LocalFrameAttention
from ssm.model.text import Prototypes, TextShape, TextualPrototypes, descriptions
from ssm.model.towers import load_tower


@dataclass(frozen=True)
class SSMOutput:
    """What a forward pass gives; a side that was not asked for is None, as is whatever its configuration lacks."""

    fe_logits: Tensor | None = None  # B E
    fe_semantic_logits: Tensor | None = None  # B E, already times w
    au_logits: Tensor | None = None  # B T A, smoothed
    au_semantic_logits: Tensor | None = None  # B T A, already times w, before smoothing
    map_au_to_fe: Tensor | None = None  # E A, without gradient, as is the next
    map_fe_to_au: Tensor | None = None  # A E
    fe_au_logits: Tensor | None = None  # B T A of the FE side, where asked for
    # Of readers that know more than a probability (`AUReading`); the last two in training with labels only.
    au_evidence: Tensor | None = None  # B T A 2
    fe_au_evidence: Tensor | None = None  # B T A 2
    au_variance: Tensor | None = None  # B T A
    au_posterior: Tensor | None = None  # B T A 2
    au_divergence: Tensor | None = None  # B T A
    affect: Tensor | None = None  # B T 2 of the VA side: valence and arousal in [-1, 1]


class Folded(nn.Module):
    """Fused prototypes kept for inference. Buffers, so they move and are copied with the model; never in its state."""

    expressions: Tensor | None
    aus: Tensor | None
    unfused_expressions: Tensor | None
    unfused_aus: Tensor | None
    au_texts: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        for name in ("expressions", "aus", "unfused_expressions", "unfused_aus", "au_texts"):
            self.register_buffer(name, None, persistent=False)

    def take(self, rows: Prototypes | None) -> None:
        """Keeps these; None forgets."""
        unfused = None if rows is None else rows.unfused
        self.expressions, self.aus = (None, None) if rows is None else (rows.expressions, rows.aus)
        self.unfused_expressions = None if unfused is None else unfused.expressions
        self.unfused_aus = None if unfused is None else unfused.aus
        self.au_texts = None if rows is None else rows.au_texts

    def rows(self) -> Prototypes | None:
        """What is kept; None where nothing is."""
        if self.expressions is None or self.aus is None:
            return None
        unfused = None
        if self.unfused_expressions is not None and self.unfused_aus is not None:
            unfused = Prototypes(self.unfused_expressions, self.unfused_aus)
        return Prototypes(self.expressions, self.aus, unfused, self.au_texts)


class SSMNetwork(nn.Module):
    """The network, from scratch or with timm's weights; `ssm.SSM` is the same with files to load and save."""

    def __init__(self, config: ModelConfig, *, text_shape: TextShape | None = None) -> None:
        """`text_shape` stands for the tower when a saved model is rebuilt: no tower is loaded then."""
        super().__init__()
        self.config = config
        released, labels, reader = config.released_behaviour, config.vocabulary, reader_class(config)
        self.backbone = Backbone(config.backbone, config.width, released=released, tokens=reader.needs_tokens)
        self.text = _prototypes(config, text_shape)
        mapped = self.text is not None and config.mapping.enabled
        self.mapping = PriorMapping(config.mapping, labels) if mapped else None
        if config.reading == "frames":
            self._read_frames(config)
        else:
            self._read_clips(config, reader.smooths)
        self.au_head = reader.of(config, self.backbone.grid)
        self.folded = Folded()
        self.affect_head = _affect_head(config)

    def _read_clips(self, config: ModelConfig, smooths: bool) -> None:
        """The method's parts over time, and its expression head."""
        labels, width = config.vocabulary, config.width
        self.expression_time: nn.Module = ExpressionTime(width, config.frames, config.expression_time)
        self.au_time: nn.Module = LocalFrameAttention(width, config.au_time)
        smoothing = (
            AUSmoothing(len(labels.aus), config.au_time, released=config.released_behaviour) if smooths else None
        )
        self.smoothing: nn.Module | None = smoothing
        self.fe_head: Any = SemanticHead(width, len(labels.expressions), config.semantic_weight, config.temperature)

    def _read_frames(self, config: ModelConfig) -> None:
        """Frame by frame, and nothing over time."""
        self.expression_time, self.au_time, self.smoothing = nn.Identity(), nn.Identity(), None
        self.fe_head = ClipOfFrames(config.width, config.frame_hidden, len(config.vocabulary.expressions))

    @property
    def vocabulary(self) -> Vocabulary:
        """The labels, in the order of the heads' columns."""
        return self.config.vocabulary

    def forward(
        self,
        fe_clips: Tensor | None = None,
        au_clips: Tensor | None = None,
        *,
        fe_row_ids: Tensor | None = None,
        au_row_ids: Tensor | None = None,
        noise_key: int | Tensor | None = None,
        fe_distinct: Tensor | None = None,
        fe_aus: bool = False,
        au_targets: Tensor | None = None,
        au_known: Tensor | None = None,
        va_clips: Tensor | None = None,
        va_row_ids: Tensor | None = None,
    ) -> SSMOutput:
        """Clips float (B, T, 3, S, S), normalised, to logits and maps.

        Row ids (int64 B) with `noise_key` make the gate noise of training a pure function of the rows. `fe_distinct`
        (int64 B) says how many frames lead each FE clip before its last one repeats: only those are encoded, so a
        still image costs one frame. `fe_aus` asks for the FE clips' AUs too. `au_targets` and `au_known` (B T A) are
        for readers that learn from labels in the pass; evaluation does not look at them. ValueError for clips that do
        not fit.
        """
        if fe_clips is None and au_clips is None and va_clips is None:
            raise ValueError("neither fe_clips nor au_clips was given")
        self._check("fe_clips", fe_clips, self.config.frames)
        self._check("au_clips", au_clips, None)
        self._check("va_clips", va_clips, self.config.frames if self.config.affect.head == "labels" else None)
        if fe_distinct is None or self.config.released_behaviour:  # else only what is encoded is looked at
            self._look("fe_clips", fe_clips)
        self._look("au_clips", au_clips)
        self._look("va_clips", va_clips)
        sides = ((fe_clips, fe_row_ids), (au_clips, au_row_ids), (va_clips, va_row_ids))
        seeds = [_seeds(clips, row_ids, noise_key, side) for side, (clips, row_ids) in enumerate(sides)]
        all_clips = [clips for clips, _ in sides]
        fe_frames, au_frames, va_frames = self._encode_sides(all_clips, seeds, fe_distinct, fe_patches=fe_aus)
        maps = self.maps()
        prototypes = self.prototypes(maps)
        fe = self.read_expression(fe_frames.pooled, prototypes) if fe_frames is not None else (None, None)
        au = fe_au = affect = None
        if au_frames is not None:
            au = self.read_aus(au_frames, prototypes, AUTeaching(au_targets, au_known, seeds[1]))
        if fe_aus and fe_frames is not None:
            fe_au = self.read_aus(fe_frames, prototypes, AUTeaching(seeds=seeds[0]))
        if va_frames is not None:
            affect = self.read_affect(va_frames, prototypes, AUTeaching(seeds=seeds[2]))
        return replace(_output(fe, au, maps, fe_au), affect=affect)

    def encode_frames(self, frames: Tensor) -> FrameFeatures:
        """Backbone features (N ...) of single frames (N, 3, S, S): long videos pass through here in pieces."""
        return cast(FrameFeatures, self.backbone(frames))

    def encode_clips(self, clips: Tensor, distinct: Tensor | None = None) -> FrameFeatures:
        """Backbone features (B, T ...) of clips (B, T, 3, S, S); `distinct` (int64 B) as `fe_distinct` of a pass."""
        return cast(FrameFeatures, self._encode_sides([clips], [None], distinct)[0])

    def read_expression(self, x_BTD: Tensor, prototypes: Prototypes | None) -> tuple[Tensor, Tensor | None]:
        """Expression logits (B, E) of the frames' features, and their semantic part."""
        rows = None if prototypes is None else prototypes.expressions
        return cast(tuple[Tensor, Tensor | None], self.fe_head(self.expression_time(x_BTD), rows))

    def read_aus(
        self,
        features: FrameFeatures,
        prototypes: Prototypes | None,
        teaching: AUTeaching | None = None,
        *,
        where: bool = False,
    ) -> AUReading:
        """What the reader says of the clips' features (B, T ...), its logits smoothed where it smooths.

        `teaching` is looked at in training only; `where` asks for the places, of a reader that knows any.
        """
        texts = None if prototypes is None else Texts(prototypes.aus, prototypes.au_texts)
        teaching = teaching if self.training else None
        inputs = AUInputs(features.pooled, features.tokens, self.au_time, texts, teaching, where)
        reading = cast(AUReading, self.au_head(inputs))
        return reading if self.smoothing is None else replace(reading, logits=self.smoothing(reading.logits))

    def read_affect(
        self, features: FrameFeatures, prototypes: Prototypes | None, teaching: AUTeaching | None = None
    ) -> Tensor:
        """Valence and arousal (B, T, 2) of the frames' features. ValueError for a model that has no such head."""
        if isinstance(self.affect_head, LabelAffect):
            return cast(Tensor, self.affect_head(*self.affect_inputs(features, prototypes, teaching)))
        if self.affect_head is None:
            raise ValueError("this model has no head for valence and arousal: its vocabulary has no affect")
        return cast(Tensor, self.affect_head(self.au_time(features.pooled)))

    def affect_inputs(
        self, features: FrameFeatures, prototypes: Prototypes | None, teaching: AUTeaching | None = None
    ) -> tuple[Tensor, Tensor]:
        """What the label head reads: AU logits (B, T, A) and expression logits (B, E)."""
        aus = self.read_aus(features, prototypes, teaching).logits
        return aus, self.read_expression(features.pooled, prototypes)[0]

    def maps(self) -> Maps | None:
        """The maps AU->FE (E, A) and FE->AU (A, E); None without a mapping."""
        return None if self.mapping is None else cast(Maps, self.mapping())

    def prototypes(self, maps: Maps | None = None) -> Prototypes | None:
        """Fused prototypes: in evaluation the folded ones where there are any, else through the text tower.

        `maps` are the present ones, where the caller has them already. None without a text side.
        """
        folded = None if self.training else self.folded.rows()
        if folded is not None or self.text is None:
            return folded
        raw = cast(Prototypes, self.text())
        each = raw.au_texts if self.au_head.needs_texts else None
        own = replace(raw, au_texts=None)
        if self.mapping is None:
            return replace(own, au_texts=each)
        fused = self.mapping.fuse(raw.expressions, raw.aus, maps or self.mapping())
        return Prototypes(*fused, unfused=own, au_texts=each)

    @torch.no_grad()
    def fold(self) -> Self:
        """Puts the model into evaluation mode and computes the fused prototypes once, where they are not yet.

        They are kept until `train()` or `load_state_dict()`: whoever writes into a folded model's weights by another
        way calls one of the two first.
        """
        self.eval()
        self.take_folded(self.prototypes())
        return self

    def take_folded(self, prototypes: Prototypes | None) -> None:
        """Serves with these fused prototypes (E D and A D) until the model trains or gets other weights."""
        self.folded.take(prototypes)

    def train(self, mode: bool = True) -> Self:
        """As any module; going to training forgets the folded prototypes."""
        if mode:
            self.folded.take(None)
        return super().train(mode)

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        """As any module; new weights make folded prototypes stale, so they are forgotten."""
        self.folded.take(None)
        return super().load_state_dict(state_dict, strict, assign)

    def _encode_sides(
        self,
        clips: list[Tensor | None],
        seeds: list[Tensor | None],
        fe_distinct: Tensor | None,
        *,
        fe_patches: bool = True,
    ) -> list[FrameFeatures | None]:
        """Features (B, T ...) of each side; one backbone call for all, because routing is per token.

        Expressions are read off pooled rows: without `fe_patches` the FE side has no others.
        """
        fe = clips[0]
        if fe is not None and fe_distinct is not None and not self.config.released_behaviour:
            rows_BT, kept = _distinct(fe_distinct, fe.shape[1])
            frames = fe.flatten(0, 1)[kept][:, None]  # as clips of one frame each
            self._look("fe_clips", frames)
            fe_seeds = None if seeds[0] is None else seeds[0][kept]
            sides = [frames, *clips[1:]], [fe_seeds, *seeds[1:]]
            distinct, *others = self._encode_sides(*sides, None, fe_patches=fe_patches)
            assert distinct is not None
            return [distinct.flat().rows(rows_BT), *others]
        there = [(one, seed) for one, seed in zip(clips, seeds, strict=True) if one is not None]
        if len(there) == 1 or self.config.released_behaviour:
            patches = [fe_patches, *(True for _ in clips[1:])]
            return [self._encode(*side) for side in zip(clips, seeds, patches, strict=True)]
        known = [seed for _, seed in there if seed is not None]
        features: FrameFeatures = self.backbone(
            torch.cat([one.flatten(0, 1) for one, _ in there]),
            torch.cat(known) if len(known) == len(there) else None,
            patches_from=0 if fe is None or fe_patches else fe.shape[0] * fe.shape[1],
        )
        parts = iter(features.split([one.shape[0] * one.shape[1] for one, _ in there]))
        return [None if one is None else next(parts).shaped(*one.shape[:2]) for one in clips]

    def _encode(self, clips: Tensor | None, seeds: Tensor | None, patches: bool) -> FrameFeatures | None:
        if clips is None:
            return None
        frames = clips.flatten(0, 1)
        features: FrameFeatures = self.backbone(frames, seeds, patches_from=0 if patches else len(frames))
        return features.shaped(*clips.shape[:2])

    def _check(self, name: str, clips: Tensor | None, most_frames: int | None) -> None:
        """ValueError for a wrong shape or type."""
        if clips is None:
            return
        size = self.config.backbone.image_size
        if clips.ndim != 5 or clips.shape[2:] != (3, size, size) or 0 in clips.shape:
            raise ValueError(f"{name} must be (B, T, 3, {size}, {size}); got {tuple(clips.shape)}")
        if not clips.is_floating_point():
            raise ValueError(f"{name} must be floating point and normalised; got {clips.dtype}")
        if most_frames is not None and clips.shape[1] > most_frames:
            raise ValueError(f"{name} has {clips.shape[1]} frames; this model takes at most {most_frames}")

    def _look(self, name: str, clips: Tensor | None) -> None:
        """ValueError for values that are not finite, where looking costs no device sync."""
        if clips is None:
            return
        # A sum is finite only where every value is: one pass, no mask in memory. On a GPU it would wait for the
        # device, so a training step there leaves it to the loss.
        look = not torch.compiler.is_compiling() and (clips.device.type == "cpu" or not self.training)
        if look and not bool(torch.isfinite(clips.sum(dtype=torch.float32))):
            raise ValueError(f"{name} holds NaN or infinite values")


def _output(
    fe: tuple[Tensor | None, Tensor | None], au: AUReading | None, maps: Maps | None, fe_au: AUReading | None
) -> SSMOutput:
    # Losses reach the maps through the prototypes; by way of the output DDP would wait for gradients that a step of one
    # side does not have.
    to_fe, to_au = (None, None) if maps is None else (maps.au_to_fe.detach(), maps.fe_to_au.detach())
    output = SSMOutput(fe_logits=fe[0], fe_semantic_logits=fe[1], map_au_to_fe=to_fe, map_fe_to_au=to_au)
    if fe_au is not None:
        output = replace(output, fe_au_logits=fe_au.logits, fe_au_evidence=fe_au.evidence)
    if au is None:
        return output
    return replace(
        output, au_logits=au.logits, au_semantic_logits=au.semantic, au_evidence=au.evidence, au_variance=au.variance,
        au_posterior=au.posterior, au_divergence=au.divergence,
    )  # fmt: skip


def _prototypes(config: ModelConfig, shape: TextShape | None) -> TextualPrototypes | None:
    if config.text.tower is None:
        return None
    if shape is not None:
        return TextualPrototypes(config.text, config.width, shape)
    texts = descriptions(config.text, config.vocabulary)
    tower = load_tower(config.text.tower)
    return TextualPrototypes.from_texts(
        config.text, config.width, texts.expressions, texts.aus, tower, per_au=texts.per_au
    )


def _affect_head(config: ModelConfig) -> FeatureAffect | LabelAffect | None:
    labels = config.vocabulary
    if not labels.affect:
        return None
    if config.affect.head == "features":
        return FeatureAffect(config.width)
    return LabelAffect(len(labels.aus), len(labels.expressions))


def _distinct(counts_B: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """Of which encoded frame each frame (B, T) has the features, and which of all frames (B*T) are encoded."""
    times = torch.arange(frames, device=counts_B.device)
    ends = counts_B.clamp(1, frames).cumsum(0)
    starts = ends - counts_B.clamp(1, frames)
    rows_BT = torch.minimum(starts[:, None] + times, ends[:, None] - 1)
    kept = (times < counts_B[:, None].clamp(1, frames)).flatten().nonzero()[:, 0]
    return rows_BT, kept


def _seeds(clips: Tensor | None, row_ids: Tensor | None, key: int | Tensor | None, side: int) -> Tensor | None:
    if clips is None or row_ids is None or key is None:
        return None
    if row_ids.shape != clips.shape[:1]:
        raise ValueError(f"expected one row id per clip, {clips.shape[0]}; got {tuple(row_ids.shape)}")
    return noise.frame_seeds(row_ids, clips.shape[1], key, side)
