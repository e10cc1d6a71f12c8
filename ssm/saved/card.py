"""The model card: a README generated from the model's own facts (data, protocol, metrics, thresholds, limits)."""

from __future__ import annotations

import json
from collections.abc import Mapping

from pydantic import BaseModel

from ssm.labels import ACTION_UNITS
from ssm.model import ModelConfig
from ssm.saved.facts import ModelFacts

_HEADER = """---
library_name: ssm-platform
pipeline_tag: video-classification
tags: [facial-action-units, facial-expression]
---
"""

_USE = """## Use
```python
from ssm import SSM

model = SSM.from_pretrained("this folder")  # in evaluation mode; no text tower needed
output = model(fe_clips=clips, au_clips=clips)  # float (B, T, 3, {size}, {size}), normalised as below
output.fe_logits  # B x {expressions}
output.au_logits  # B x T x {aus}
```
"""

_LIMITS = """## Limits
Facial movements are not feelings: an expression class says how a face looks, not what a person feels. The model was
fitted to the corpora named above; on other cameras, ages, skin tones, poses and cultures its figures do not hold until
measured there. Not for decisions about people.
"""


def model_card(config: ModelConfig, facts: ModelFacts, fingerprints: Mapping[str, str]) -> str:
    """The card's Markdown."""
    labels = config.vocabulary
    use = _USE.format(size=config.backbone.image_size, expressions=len(labels.expressions), aus=len(labels.aus))
    units = ", ".join(f"{number} ({ACTION_UNITS[number].name})" for number in labels.aus)
    return "\n".join([
        _HEADER,
        "# SSM: facial action units and expressions from video",
        f"Backbone `{config.backbone.name}` at {config.backbone.image_size} px, "
        f"text tower `{config.text.tower}`, prompt style `{config.text.style}`, prior `{config.mapping.prior}`. "
        f"Method: arXiv 2604.10541.{_reader(config)}",
        "",
        use,
        "## Labels, in column order",
        f"* Expressions: {', '.join(labels.expressions)}",
        f"* Action units: {units}",
        *([f"* Affect, each in [-1, 1]: {', '.join(labels.affect)}"] if labels.affect else []),
        "",
        "## Data",
        _block(facts.data, "Not recorded."),
        "## Metrics",
        _block(facts.metrics, "Not measured. A figure without its protocol says nothing."),
        "## Decision rule (thresholds and vote over time)",
        _block(_dump(facts.rule), "None fitted: probabilities only."),
        *(["## Smoothing over frames", _block(_dump(facts.smoothing), "")] if facts.smoothing else []),
        "## Preprocessing",
        _block(_dump(facts.preprocessing), "Not recorded."),
        _LIMITS,
        "## Fingerprints",
        *(f"* {name}: `{value}`" for name, value in fingerprints.items()),
        "",
    ])  # fmt: skip


def _reader(config: ModelConfig) -> str:
    """How AUs are read, where it is not the method's own way. Of the papers only the abstracts could be read."""
    kind = config.au_reader.kind
    papers = {"evidential": "UAU-Net (arXiv 2604.21227)", "hiva": "HiVA (arXiv 2602.14425)"}
    after = " and ".join(paper for word, paper in papers.items() if word in kind)
    return f" AUs are read by `{kind}`, built after {after}; no constant of it is the authors'." if after else ""


def _dump(value: BaseModel | None) -> dict[str, object] | None:
    return None if value is None else value.model_dump(mode="json")


def _block(value: Mapping[str, object] | None, absent: str) -> str:
    if not value:
        return absent + "\n"
    return "```json\n" + json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n```\n"
