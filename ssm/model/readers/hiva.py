"""AU nodes that meet their descriptions (methods, 3; after HiVA, of which only the abstract could be read).

    v^_a = LN(v'_a + MHA(v'_a; T_a)),          T^_am = LN(T_am + MHA(T_am; U_a)),  t^_a = mean_m T^_am      (by itself)
    v*_a = LN(v^_a + MHA(v^_a; {t^_b}_b)),     t*_a  = LN(t^_a + MHA(t^_a; {v^_b}_b))                      (with others)
    logit_a = w_a . x_a + b_a + w cos(x_a, t*_a) / temperature,  x_a = v*_a after the local frame attention

T_a are the descriptions of AU a and its fused prototype. The weights of T_am over the patches are where AU a is looked
for. What goes through every patch and AU (F P A D numbers) is made a few AUs at a time, and again in the backward pass.
Letters: F = B T frames, P patches, D width, A action units, M texts, h heads.
"""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from ssm.model.config import FocusConfig, GraphConfig, ModelConfig
from ssm.model.precision import full, island
from ssm.model.readers.attention import MultiHead
from ssm.model.readers.base import AUInputs, AUReader, AUReading
from ssm.model.readers.evidential import evidential_reading
from ssm.model.readers.graph import AUGraph, AUNodes

_ROOM = 2**26
"""Numbers of one view of the patches that are in memory at a time."""


class Described(nn.Module):
    """Nodes and descriptions, before anything is read off them."""

    def __init__(self, width: int, aus: int, config: GraphConfig) -> None:
        super().__init__()
        self.nodes, self.graph = AUNodes(width, aus), AUGraph(width, config)
        self.fits, self.looks, self.sees_texts, self.sees_nodes = (MultiHead(width, config.heads) for _ in range(4))
        self.norm_v, self.norm_t, self.norm_nodes, self.norm_texts = (nn.LayerNorm(width) for _ in range(4))

    def forward(self, x_FPD: Tensor, texts_AMD: Tensor, where: bool = False) -> tuple[Tensor, Tensor, Tensor | None]:
        """v* and t* (F, A, D), and the shares of the patches (F, A, P) where asked for."""
        v_FAD, found_FAMD, where_FAP = self._look(x_FPD, texts_AMD, where)
        v_FAD, t_FAD = self.alone(self.graph(v_FAD), texts_AMD, found_FAMD)
        return *self.together(v_FAD, t_FAD), where_FAP

    def alone(self, v_FAD: Tensor, texts_AMD: Tensor, found_FAMD: Tensor) -> tuple[Tensor, Tensor]:
        """Each AU's node and descriptions by themselves: v^ and t^ (F, A, D)."""
        fitting = self.fits(v_FAD[:, :, None], texts_AMD[None])[:, :, 0]
        return self.norm_v(v_FAD + fitting), self.norm_t(texts_AMD + found_FAMD).mean(2)

    def together(self, v_FAD: Tensor, t_FAD: Tensor) -> tuple[Tensor, Tensor]:
        """Nodes over all AUs' texts, texts over all AUs' nodes."""
        return self.norm_nodes(v_FAD + self.sees_texts(v_FAD, t_FAD)), self.norm_texts(
            t_FAD + self.sees_nodes(t_FAD, v_FAD)
        )

    def _look(self, x_FPD: Tensor, texts_AMD: Tensor, where: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        """v (F, A, D), what the texts find in U (F, A, M, D), and where."""
        queries_AhMD = self.looks.absorbed(texts_AMD)
        aus = len(queries_AhMD)
        step = max(1, min(aus, _ROOM // max(1, x_FPD.numel())))
        parts = [
            self._piece(x_FPD, queries_AhMD, first, min(first + step, aus), where) for first in range(0, aus, step)
        ]
        means, mixed, shares = zip(*parts, strict=True)
        return torch.cat(means, 1), self.looks.values(torch.cat(mixed, 1)), torch.cat(shares, 1) if where else None

    def _piece(
        self, x_FPD: Tensor, queries_AhMD: Tensor, first: int, last: int, where: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        if not torch.is_grad_enabled():
            return self._views(x_FPD, queries_AhMD[first:last], first, last, where)
        return checkpoint(
            self._views, x_FPD, queries_AhMD[first:last], first, last, where,
            use_reentrant=False, preserve_rng_state=False,
        )  # fmt: skip

    def _views(
        self, x_FPD: Tensor, queries_ahMD: Tensor, first: int, last: int, where: bool
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Of some AUs: their nodes (F, a, D), the keys gathered by each head and text (F, a, h, M, D), the shares."""
        u_FPaD = self.nodes.views(x_FPD, first, last)
        keys_FaPD = u_FPaD.transpose(1, 2).to(queries_ahMD.dtype)
        _, heads, texts, _ = queries_ahMD.shape
        scores = queries_ahMD.flatten(1, 2) @ keys_FaPD.transpose(-1, -2)  # F a hM P
        weights = full(scores).softmax(-1)
        mixed = (weights.to(keys_FaPD.dtype) @ keys_FaPD).view(*keys_FaPD.shape[:2], heads, texts, -1)
        return u_FPaD.mean(1), mixed, weights.mean(2) if where else None


class HivaReader(AUReader):
    """Logits, or Beta evidence, from nodes that met their descriptions."""

    needs_tokens = True
    needs_texts = True
    gives_places = True

    def __init__(self, width: int, aus: int, scale: float, config: GraphConfig) -> None:
        super().__init__()
        self.described = Described(width, aus, config)
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(aus, self.outputs, width).uniform_(-(width**-0.5), width**-0.5))
        self.bias = nn.Parameter(torch.zeros(aus, self.outputs))

    outputs: ClassVar[int] = 1

    @classmethod
    def check(cls, config: ModelConfig) -> None:
        """Descriptions, heads and neighbours."""
        graph, aus = config.au_reader.graph, len(config.vocabulary.aus)
        if config.text.tower is None:
            raise ValueError(f"au_reader.kind {config.au_reader.kind!r} reads descriptions: set text.tower")
        if config.width % graph.heads:
            raise ValueError(f"width is {config.width}; au_reader.graph.heads, {graph.heads}, must divide it")
        if graph.neighbours > aus:
            raise ValueError(
                f"au_reader.graph.neighbours is {graph.neighbours}; the vocabulary has {aus} AUs: "
                "ask for at most so many"
            )

    @classmethod
    def of(cls, config: ModelConfig, grid: tuple[int, int] | None) -> Self:
        """The reader of a configuration."""
        scale = config.semantic_weight / config.temperature
        return cls(config.width, len(config.vocabulary.aus), scale, config.au_reader.graph)

    def read(self, inputs: AUInputs) -> AUReading:
        """What the subclass makes of scores and cosines."""
        assert inputs.tokens is not None
        assert inputs.texts is not None
        assert inputs.texts.each is not None
        texts_AMD = torch.cat([inputs.texts.each, inputs.texts.fused[:, None]], dim=1)
        clips, frames = inputs.pooled.shape[:2]
        v_FAD, t_FAD, where_FAP = self.described(inputs.tokens.flatten(0, 1), texts_AMD, inputs.where)
        v_BATD = v_FAD.view(clips, frames, *v_FAD.shape[1:]).transpose(1, 2)
        x_BTAD = inputs.over_time(v_BATD.flatten(0, 1)).view(v_BATD.shape).transpose(1, 2)
        with island(x_BTAD):
            x_BTAD, t_BTAD = full(x_BTAD), full(t_FAD).view(clips, frames, *t_FAD.shape[1:])
            scores = torch.einsum("btad,aod->btao", x_BTAD, self.weight) + self.bias
            reading = self.answer(scores, self.scale * functional.cosine_similarity(x_BTAD, t_BTAD, dim=-1))
        where = None if where_FAP is None else where_FAP.view(clips, frames, *where_FAP.shape[1:])
        return AUReading(reading.logits, reading.semantic, reading.evidence, where=where)

    def answer(self, scores_BTAO: Tensor, semantic_BTA: Tensor) -> AUReading:
        """Logits."""
        return AUReading(scores_BTAO[..., 0] + semantic_BTA, semantic_BTA)


class EvidentialHivaReader(HivaReader):
    """The same with Beta evidence, and so without smoothing."""

    gives_evidence = True
    smooths = False
    outputs: ClassVar[int] = 2
    focus: FocusConfig

    @classmethod
    def of(cls, config: ModelConfig, grid: tuple[int, int] | None) -> Self:
        """The reader of a configuration."""
        reader = super().of(config, grid)
        reader.focus = config.au_reader.focus
        return reader

    def answer(self, scores_BTAO: Tensor, semantic_BTA: Tensor) -> AUReading:
        """Evidence."""
        return evidential_reading(scores_BTAO, semantic_BTA, self.focus)
