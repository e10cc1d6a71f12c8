"""Textual semantic prototypes (TSP): learnable contexts around each label's description, through a frozen tower.

A prompt is `[start] [K contexts] [description] [end]` (section 3); only the contexts, and for sentence encoders one
projection, learn. The descriptions' token vectors are constants kept in the checkpoint, so that the tower is needed
to train or to fold and never to serve. Letters: L labels, K contexts, S longest prompt, W tower width, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn
from torch.nn import functional

from ssm.config import TextConfig
from ssm.towers import TextTower, TokenVectors, load_tower


class TextShape(BaseModel):
    """What the sizes of the prototypes' tensors depend on besides the configuration; saved with a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    expression_texts: tuple[str, ...] = Field(description="descriptions of the expressions, in column order")
    au_texts: tuple[str, ...] = Field(description="descriptions of the AUs, in column order")
    token_width: int = Field(ge=1, description="width of the tower's token vectors (W)")
    longest: int = Field(ge=1, description="tokens of the longest description")
    out_width: int = Field(ge=1, description="width of the tower's features")
    projected: bool = Field(description="whether the tower's features already live in a joint space (CLIP)")


@dataclass(frozen=True)
class Prototypes:
    """L2-normalised rows: expressions (E D) and AUs (A D)."""

    expressions: Tensor
    aus: Tensor
    unfused: Prototypes | None = None  # of fused rows: what they were made of, which explanations need

    def apply(self, function: Callable[[Tensor], Tensor]) -> Prototypes:
        """The same with every tensor replaced by `function` of it."""
        unfused = None if self.unfused is None else self.unfused.apply(function)
        return Prototypes(function(self.expressions), function(self.aus), unfused)


class TextualPrototypes(nn.Module):
    """The prompts of all labels, expressions first, and their prototypes."""

    body: Tensor
    lengths: Tensor
    start: Tensor
    end: Tensor

    def __init__(self, config: TextConfig, width: int, shape: TextShape) -> None:
        super().__init__()
        self.config, self.shape = config, shape
        self.expressions, self.labels = len(shape.expression_texts), len(shape.expression_texts) + len(shape.au_texts)
        self.register_buffer("body", torch.zeros(self.labels, shape.longest, shape.token_width))
        self.register_buffer("lengths", torch.zeros(self.labels, dtype=torch.long))
        self.register_buffer("start", torch.zeros(shape.token_width))
        self.register_buffer("end", torch.zeros(shape.token_width))
        sets = 2 if config.shared_contexts else self.labels
        self.contexts = nn.Parameter(torch.randn(sets, config.contexts, shape.token_width) * config.context_std)
        direct = shape.projected and shape.out_width == width
        self.projection = nn.Identity() if direct else nn.Linear(shape.out_width, width)
        self._tower: list[TextTower] = []  # in a list: a module attribute would put the tower into checkpoints and DDP

    @classmethod
    def from_texts(
        cls, config: TextConfig, width: int, expression_texts: Sequence[str], au_texts: Sequence[str], tower: TextTower
    ) -> TextualPrototypes:
        """Prototypes of these descriptions; ValueError names a text that the tower cannot hold."""
        vectors = tower.embed([*expression_texts, *au_texts])
        _check_lengths(vectors, config, tower)
        shape = TextShape(
            expression_texts=tuple(expression_texts), au_texts=tuple(au_texts), token_width=vectors.body.shape[2],
            longest=vectors.body.shape[1], out_width=tower.out_width, projected=tower.projected,
        )  # fmt: skip
        module = cls(config, width, shape)
        module.fill(vectors)
        module._tower.append(tower)
        return module

    def fill(self, vectors: TokenVectors) -> None:
        """Takes over the constant token vectors."""
        self.body.copy_(vectors.body)
        self.lengths.copy_(vectors.lengths)
        self.start.copy_(vectors.start)
        self.end.copy_(vectors.end)

    @property
    def tower(self) -> TextTower:
        """The frozen tower, loaded when first needed."""
        if not self._tower:
            assert self.config.tower is not None
            tower = load_tower(self.config.tower)
            if tower.out_width != self.shape.out_width:
                raise ValueError(
                    f"text tower {self.config.tower!r} gives features of width {tower.out_width}; "
                    f"this model was made with one of width {self.shape.out_width}"
                )
            tower.to(self.body.device)
            self._tower.append(tower)
        return self._tower[0]

    def use_tower(self, tower: TextTower) -> None:
        """Replaces the tower by one that is already in memory."""
        self._tower[:] = [tower]

    def _apply(self, fn, recurse: bool = True):  # type: ignore[no-untyped-def]
        """Moves the tower along with the module."""
        result = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for tower in self._tower:
            tower.to(self.body.device)
        return result

    def forward(self) -> Prototypes:
        """Prototypes of all labels, in one pass of the tower."""
        prompts, lengths = self.prompts()
        features = self.projection(self.tower.encode(prompts, lengths))
        rows = functional.normalize(features.float(), dim=-1)
        return Prototypes(rows[: self.expressions], rows[self.expressions :])

    def prompts(self) -> tuple[Tensor, Tensor]:
        """Prompt vectors (L, S, W), zero behind the end, and their lengths (L)."""
        count = self.config.contexts
        contexts = self._contexts_per_label()
        # Pool of a label's vectors: contexts, description, start, end, zero; `_layout` says which stands where.
        ends = torch.stack([self.start, self.end, torch.zeros_like(self.start)]).expand(self.labels, -1, -1)
        pool = torch.cat([contexts, self.body, ends], dim=1)
        layout = self._layout()
        prompts = pool.gather(1, layout[..., None].expand(-1, -1, pool.shape[-1]))
        return prompts, self.lengths + count + 2

    def _contexts_per_label(self) -> Tensor:
        if not self.config.shared_contexts:
            return self.contexts
        aus = self.labels - self.expressions
        return torch.cat([self.contexts[:1].expand(self.expressions, -1, -1), self.contexts[1:].expand(aus, -1, -1)])

    def _layout(self) -> Tensor:
        """Positions into the pool (L, S): where `position` puts the description among the contexts."""
        count, longest = self.config.contexts, self.shape.longest
        before = {"end": count, "middle": count // 2, "front": 0}[self.config.position]
        step = torch.arange(longest + count + 2, device=self.body.device).expand(self.labels, -1)
        length = self.lengths[:, None]
        start, end, zero = (count + longest + offset for offset in range(3))
        layout = torch.where(step <= before, step - 1, count + step - 1 - before)
        layout = torch.where(step > before + length, step - 1 - length, layout)
        layout = torch.where(step == 0, start, layout)
        layout = torch.where(step == length + count + 1, end, layout)
        return torch.where(step > length + count + 1, zero, layout)


def _check_lengths(vectors: TokenVectors, config: TextConfig, tower: TextTower) -> None:
    room = tower.max_positions - config.contexts - 2
    for text, length in zip(vectors.texts, vectors.lengths.tolist(), strict=True):
        if not 0 < length <= room:
            raise ValueError(
                f"the description {text!r} has {length} tokens; with {config.contexts} contexts the tower "
                f"{config.tower!r} takes 1 to {room}"
            )
