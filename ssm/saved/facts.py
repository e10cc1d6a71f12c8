"""`config.json` of a saved model: architecture, texts, facts beside the weights, fingerprints."""

from __future__ import annotations

import hashlib
import json
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from ssm.interface import Abstention, DecisionRule, Preprocessing, Smoothing
from ssm.model import ModelConfig, Precision, SSMNetwork, TextShape


class ModelFacts(BaseModel):
    """What travels with the weights and is not architecture. Filled by training and evaluation, read by serving."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preprocessing: Preprocessing | None = Field(default=None, description="how a frame becomes the model's input")
    rule: DecisionRule | None = Field(default=None, description="when an AU counts as present; None: not fitted")
    au_temperature: float | None = Field(default=None, gt=0, description="divides the AUs' logits; None: 1")
    expression_temperature: float | None = Field(
        default=None, gt=0, description="divides the expressions' logits; None: 1"
    )
    smoothing: Smoothing | None = Field(default=None, description="what is done to frame scores; None: nothing")
    abstention: Abstention | None = Field(default=None, description="when an AU is not answered; None: always is")
    precision: Precision | Literal["auto"] = Field(
        default="auto",
        description="type every reader multiplies in; auto: bfloat16 on a GPU that has it",
    )
    metrics: dict[str, JsonValue] = Field(default_factory=dict, description="figures with their protocol")
    data: dict[str, JsonValue] = Field(default_factory=dict, description="corpora, splits, seeds, licences")


class SavedConfig(BaseModel):
    """The contents of `config.json`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = Field(description="version of this layout")
    model: ModelConfig = Field(description="architecture")
    text_shape: TextShape | None = Field(description="descriptions and sizes of the text side; None without TSP")
    facts: ModelFacts = Field(description="what travels with the weights")
    fingerprints: dict[str, str] = Field(description="SHA-256 of preprocessing, labels, prompts and prior")


def fingerprint(value: object) -> str:
    """SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def fingerprints(model: SSMNetwork, facts: ModelFacts) -> dict[str, str]:
    """Fingerprints of whatever a prediction depends on besides the weights."""
    # what models of before did not have is left out where it says what they did, so that theirs still hold
    shape = None if model.text is None else model.text.shape.model_dump(mode="json", exclude_defaults=True)
    prior = (
        None if model.mapping is None else [[round(cell, 6) for cell in row] for row in model.mapping.prior.tolist()]
    )
    return {
        "labels": fingerprint(model.vocabulary.model_dump(mode="json")),
        "prompts": fingerprint(shape),
        "prior": fingerprint(prior),
        "preprocessing": _preprocessing_fingerprint(facts),
    }


def _preprocessing_fingerprint(facts: ModelFacts) -> str:
    """That of `ssm.interface.preprocessing`, which covers its code too; of nothing where none is recorded."""
    if facts.preprocessing is None:
        return fingerprint(None)
    return facts.preprocessing.fingerprint()
