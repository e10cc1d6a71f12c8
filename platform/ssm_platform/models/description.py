"""What is known of a saved model without loading it: where it is, what it takes, what its answers mean.

Imports no torch: the processes that decode and find faces, and those that speak HTTP, need no more than this.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from ssm.interface import Abstention, DecisionRule, Preprocessing, Smoothing, notice
from ssm.labels import Vocabulary
from ssm_platform.base import default_place
from ssm_platform.models.registry import Registry
from ssm_platform.models.shipped import SHIPPED, shipped_model
from ssm_platform.models.shipped import notice as shipped_notice

LOG = logging.getLogger(__name__)

DEFAULT = "latest"
"""The alias that is read with where no model is named."""

Expressions = Literal["on", "off"]
"""Whether answers name expressions, or action units alone: naming movements is not inferring emotions."""


class ModelDescription(BaseModel):
    """What a model takes and what its answers mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str = Field(description="SHA-256 of weights and configuration: equal means equal answers")
    frames: int = Field(description="frames T of a clip")
    vocabulary: Vocabulary = Field(description="action units and expressions, in the order of all columns")
    preprocessing: Preprocessing = Field(description="how a face becomes the model's input")
    precision: str = Field(description="type its products are taken in: float32 or bfloat16")
    rule: DecisionRule = Field(description="when an AU counts as present")
    smoothing: Smoothing = Field(default=Smoothing(), description="what is done to scores of single frames")
    fitted: bool = Field(description="whether the rule was fitted; if not it is 0.5 without a vote")
    evidence: bool = Field(default=False, description="whether it says how little it knows of each AU")
    abstention: Abstention | None = Field(default=None, description="when presence of an AU is withheld; None: never")
    places: bool = Field(default=False, description="whether it says where in the picture it looks for each AU")

    def shown(self, expressions: Expressions, uncertainty: bool = False, where: bool = False) -> Self:
        """What is answered of the model: with `expressions` off, the same without a column that names one; `evidence`
        and `places` then say whether doubts and heat maps are answered. ValueError where `uncertainty` or `where` asks
        for those of a model without any.
        """
        if uncertainty and not self.evidence:
            raise ValueError("this model gives no evidence, so it has no uncertainty to tell: train with +evidential")
        if where and not self.places:
            raise ValueError("this model looks at no places: train with +hiva for heat maps")
        labels = self.vocabulary if expressions == "on" else Vocabulary(aus=self.vocabulary.aus)
        return self.model_copy(update={"vocabulary": labels, "evidence": uncertainty, "places": where})

    @property
    def notice(self) -> str:
        """What goes beside the answers."""
        return notice(expressions=bool(self.vocabulary.expressions))


def locate(model: str, registry: str | None) -> Path:
    """The folder of a saved model: `model` itself, what the registry has under that alias or version, or of a hub id.

    Where nobody registered a model, `DEFAULT` is the one that comes with the package, if one does.
    """
    folder = Path(model)
    if folder.is_dir():
        return folder.absolute()
    if (own := _shipped(model, registry)) is not None:
        return own
    if "/" in model:
        from ssm.saved import fetch  # torch comes with it

        return fetch(model)
    return _registry(registry).resolve(model)


def pinned(model: str, registry: str | None) -> str:
    """`model` as something that does not change under a running service: a folder, or the version an alias means."""
    if Path(model).is_dir() or "/" in model:
        return str(locate(model, registry))
    if _shipped(model, registry) is not None:
        if model != SHIPPED:
            LOG.warning("%s", shipped_notice())
        return SHIPPED  # every process finds it in its own copy of the package
    return _registry(registry).version(model)


def registry_uri(registry: str | None) -> str:
    """The registry named, else the one beside the runs, as every process of a cluster understands it: absolute."""
    uri = registry or f"{default_place()}/registry"
    return uri if "://" in uri else str(Path(uri).absolute())


def _shipped(model: str, registry: str | None) -> Path | None:
    """The package's model where that is what `model` means."""
    own = shipped_model()
    if model == SHIPPED and own is None:
        raise ValueError(f"{SHIPPED}: no model comes with this package; name a folder or train one")
    unnamed = own is not None and model == DEFAULT and not _registry(registry).versions()
    return own if model == SHIPPED or unnamed else None


def _registry(uri: str | None) -> Registry:
    return Registry(registry_uri(uri))
