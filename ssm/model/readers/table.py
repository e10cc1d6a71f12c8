"""The AU readers there are: a reader is a file beside this one and a row here (docs/methods.md, "Add a method")."""

from __future__ import annotations

from collections.abc import Mapping

from ssm.model.config import ModelConfig
from ssm.model.readers.base import AUReader
from ssm.model.readers.evidential import EvidentialReader
from ssm.model.readers.frame import FrameReader
from ssm.model.readers.hiva import EvidentialHivaReader, HivaReader
from ssm.model.readers.latent import LatentReader
from ssm.model.readers.linear import LinearReader

READERS: Mapping[str, type[AUReader]] = {
    "linear": LinearReader,
    "evidential": EvidentialReader,
    "hiva": HivaReader,
    "hiva_evidential": EvidentialHivaReader,
    "cvae_evidential": LatentReader,
}
"""By the name that `au_reader.kind` takes."""


def reader_class(config: ModelConfig) -> type[AUReader]:
    """The reader that a configuration asks for. ValueError where there is none, or the rest does not fit it."""
    kind = config.au_reader.kind
    if config.reading == "frames":
        if kind != "linear":
            raise ValueError(f"au_reader.kind is {kind!r} and reading is 'frames', which has a reader of its own")
        return FrameReader
    if kind not in READERS:
        raise ValueError(f"au_reader.kind is {kind!r}; there are {', '.join(READERS)}")
    if config.released_behaviour and kind != "linear":
        raise ValueError(f"au_reader.kind is {kind!r}; released_behaviour is of 'linear' alone: set it to False")
    READERS[kind].check(config)
    return READERS[kind]
