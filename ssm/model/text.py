"""Textual semantic prototypes (TSP): learnable contexts around each label's description, through a frozen tower.

A prompt is `[start] [K contexts] [description] [end]` (section 3); only the contexts, and for sentence encoders one
projection, learn. The descriptions' token vectors are constants kept in the checkpoint, so that the tower is needed
to train or to fold and never to serve. An AU may have several descriptions: its contexts stand in all of them, and its
prototype is their normalised mean.
Letters: L prompts, K contexts, S longest prompt, W tower width, D width, A AUs, M descriptions of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, combinations, pairwise
from pathlib import Path
from typing import Self

import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from ssm.labels import Descriptions, Vocabulary, load_style
from ssm.model.config import TextConfig
from ssm.model.precision import full, island
from ssm.model.towers import TextTower, TokenVectors, load_tower


class TextShape(BaseModel):
    """What the sizes of the prototypes' tensors depend on besides the configuration; saved with a model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    expression_texts: tuple[str, ...] = Field(description="descriptions of the expressions, in column order")
    au_texts: tuple[str, ...] = Field(description="descriptions of the AUs, in column order, those of one AU together")
    per_au: int = Field(default=1, ge=1, description="descriptions of each AU (M)")
    token_width: int = Field(ge=1, description="width of the tower's token vectors (W)")
    lengths: tuple[int, ...] = Field(description="tokens of each description, expressions first")
    out_width: int = Field(ge=1, description="width of the tower's features")
    projected: bool = Field(description="whether the tower's features already live in a joint space (CLIP)")

    @model_validator(mode="after")
    def _one_length_per_text(self) -> Self:
        texts = len(self.expression_texts) + len(self.au_texts)
        if len(self.lengths) != texts or any(length < 1 for length in self.lengths):
            raise ValueError(f"lengths are {self.lengths}: must be {texts} positive numbers, one per description")
        if len(self.au_texts) % self.per_au:
            raise ValueError(f"{len(self.au_texts)} descriptions of AUs cannot be {self.per_au} of each")
        return self


@dataclass(frozen=True)
class Prototypes:
    """L2-normalised rows: expressions (E D) and AUs (A D)."""

    expressions: Tensor
    aus: Tensor
    unfused: Prototypes | None = None  # of fused rows: what they were made of, which explanations need
    au_texts: Tensor | None = None  # A M D, every description of an AU by itself, where it is asked for


class TextualPrototypes(nn.Module):
    """The prompts of all labels, expressions first, and their prototypes."""

    body: Tensor
    start: Tensor
    end: Tensor
    lengths: Tensor
    layout: Tensor
    back: Tensor

    def __init__(self, config: TextConfig, width: int, shape: TextShape) -> None:
        super().__init__()
        self.config, self.shape = config, shape
        self.expressions, self.prompted = len(shape.expression_texts), len(shape.expression_texts) + len(shape.au_texts)
        self.register_buffer("body", torch.zeros(self.prompted, max(shape.lengths), shape.token_width))
        self.register_buffer("start", torch.zeros(shape.token_width))
        self.register_buffer("end", torch.zeros(shape.token_width))
        # What follows from the shape alone is not saved.
        self.register_buffer("lengths", torch.tensor(shape.lengths) + config.contexts + 2, persistent=False)
        self.register_buffer("layout", _layout(shape.lengths, config), persistent=False)
        groups = length_groups(shape.lengths)
        self.sizes = [max(shape.lengths[label] for label in group) + config.contexts + 2 for group in groups]
        for number, group in enumerate(groups):
            self.register_buffer(f"group{number}", torch.tensor(group), persistent=False)
        self.register_buffer("back", torch.tensor(list(chain(*groups))).argsort(), persistent=False)
        labels = self.expressions + len(shape.au_texts) // shape.per_au
        sets = 2 if config.shared_contexts else labels
        self.contexts = nn.Parameter(torch.randn(sets, config.contexts, shape.token_width) * config.context_std)
        direct = shape.projected and shape.out_width == width
        self.projection = nn.Identity() if direct else nn.Linear(shape.out_width, width)
        self._tower: list[TextTower] = []  # in a list: a module attribute would put the tower into checkpoints and DDP
        self._constant: tuple[int, Tensor] | None = None  # features of prompts without contexts, and what they are of

    @classmethod
    def from_texts(
        cls,
        config: TextConfig,
        width: int,
        expression_texts: Sequence[str],
        au_texts: Sequence[str],
        tower: TextTower,
        *,
        per_au: int = 1,
    ) -> TextualPrototypes:
        """Prototypes of these descriptions, `per_au` of each AU; ValueError names a text that the tower cannot hold."""
        vectors = tower.embed([*expression_texts, *au_texts])
        _check_lengths(vectors, config, tower)
        shape = TextShape(
            expression_texts=tuple(expression_texts), au_texts=tuple(au_texts), per_au=per_au,
            token_width=vectors.body.shape[2], lengths=tuple(vectors.lengths.tolist()), out_width=tower.out_width,
            projected=tower.projected,
        )  # fmt: skip
        module = cls(config, width, shape)
        module.fill(vectors)
        module._tower.append(tower)
        return module

    def fill(self, vectors: TokenVectors) -> None:
        """Takes over the constant token vectors."""
        self.body.copy_(vectors.body)
        self.start.copy_(vectors.start)
        self.end.copy_(vectors.end)

    @property
    def tower(self) -> TextTower:
        """The frozen tower, loaded when first needed."""
        if not self._tower:
            assert self.config.tower is not None
            tower = load_tower(self.config.tower)
            widths, made_with = (tower.token_width, tower.out_width), (self.shape.token_width, self.shape.out_width)
            if widths != made_with:
                raise ValueError(
                    f"text tower {self.config.tower!r} has token vectors and features of widths {widths}; "
                    f"this model was made with one of {made_with}"
                )
            tower.to(self.body.device)
            self._tower.append(tower)
        return self._tower[0]

    def use_tower(self, tower: TextTower) -> None:
        """Replaces the tower by one that is already in memory."""
        self._tower[:] = [tower]
        self._constant = None

    def _apply(self, fn, recurse: bool = True):  # type: ignore[no-untyped-def]
        """Moves the tower along with the module."""
        result = super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._constant = None
        for tower in self._tower:
            tower.to(self.body.device)
        return result

    def forward(self) -> Prototypes:
        """Prototypes of all labels."""
        features = self._features()
        with island(features):
            rows = functional.normalize(self.projection(full(features)), dim=-1)
            each = rows[self.expressions :].view(-1, self.shape.per_au, rows.shape[1])
            aus = each[:, 0] if self.shape.per_au == 1 else functional.normalize(each.mean(1), dim=-1)
        return Prototypes(rows[: self.expressions], aus, au_texts=each)

    def _features(self) -> Tensor:
        """The tower's features (L, out_width); without contexts they never change and are computed once."""
        if self.config.contexts or torch.compiler.is_compiling():
            return self._encode()
        if self._constant is None or self._constant[0] != self.body._version:
            with torch.inference_mode(False), torch.no_grad():
                self._constant = self.body._version, self._encode()
        return self._constant[1]

    def _encode(self) -> Tensor:
        """One pass of the tower per group of prompts of similar lengths, so that padding costs a CPU little."""
        prompts, lengths = self.prompts()
        if prompts.is_cuda:  # there a call costs more than padding
            return self.tower.encode(prompts, lengths)
        parts = []
        for number, size in enumerate(self.sizes):
            group = self.get_buffer(f"group{number}")
            parts.append(self.tower.encode(prompts[group, :size], lengths[group]))
        return torch.cat(parts)[self.back]

    def prompts(self) -> tuple[Tensor, Tensor]:
        """Prompt vectors (L, S, W), zero behind the end, and their lengths (L)."""
        contexts = self._contexts_per_prompt()
        # Pool of a label's vectors: contexts, description, start, end, zero; `layout` says which stands where.
        ends = torch.stack([self.start, self.end, torch.zeros_like(self.start)]).expand(self.prompted, -1, -1)
        pool = torch.cat([contexts, self.body, ends], dim=1)
        return pool.gather(1, self.layout[..., None].expand(-1, -1, pool.shape[-1])), self.lengths

    def _contexts_per_prompt(self) -> Tensor:
        aus = self.prompted - self.expressions
        if self.config.shared_contexts:
            own, others = self.contexts[:1].expand(self.expressions, -1, -1), self.contexts[1:].expand(aus, -1, -1)
            return torch.cat([own, others])
        if self.shape.per_au == 1:
            return self.contexts
        of_aus = self.contexts[self.expressions :].repeat_interleave(self.shape.per_au, dim=0)
        return torch.cat([self.contexts[: self.expressions], of_aus])


def _layout(lengths: Sequence[int], config: TextConfig) -> Tensor:
    """Positions into the pool (L, S): where `position` puts the description among the contexts."""
    count, longest = config.contexts, max(lengths)
    before = {"end": count, "middle": count // 2, "front": 0}[config.position]
    start, end, zero = (count + longest + offset for offset in range(3))
    rows = []
    for length in lengths:
        contexts, text = list(range(count)), list(range(count, count + length))
        prompt = [start, *contexts[:before], *text, *contexts[before:], end]
        rows.append(prompt + [zero] * (longest - length))
    return torch.tensor(rows)


def length_groups(lengths: Sequence[int], most: int = 3, call: int = 32) -> list[list[int]]:
    """Labels in at most `most` groups of similar length, least padded tokens in sum; a group costs `call` tokens more.

    Each group comes in order of length; together they are all labels.
    """
    order = sorted(range(len(lengths)), key=lambda label: lengths[label])
    best: tuple[int, list[list[int]]] | None = None
    for cuts in range(min(most, len(order))):
        for ends in combinations(range(1, len(order)), cuts):
            edges = [0, *ends, len(order)]
            groups = [order[first:last] for first, last in pairwise(edges)]
            cost = sum(len(group) * lengths[group[-1]] + call for group in groups)
            if best is None or cost < best[0]:
                best = cost, groups
    assert best is not None
    return best[1]


def _check_lengths(vectors: TokenVectors, config: TextConfig, tower: TextTower) -> None:
    room = tower.max_positions - config.contexts - 2
    for text, length in zip(vectors.texts, vectors.lengths.tolist(), strict=True):
        if not 0 < length <= room:
            raise ValueError(
                f"the description {text!r} has {length} tokens; with {config.contexts} contexts the tower "
                f"{config.tower!r} takes 1 to {room}"
            )


def descriptions(config: TextConfig, vocabulary: Vocabulary) -> Descriptions:
    """The texts that the configuration asks for; ValueError names style, file or label at fault."""
    style = load_style(config.style if config.style_file is None else Path(config.style_file))
    texts = style.texts(vocabulary)
    return texts if config.scramble is None else texts.scrambled(config.scramble)
