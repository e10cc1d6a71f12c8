"""What the numbers of a table were made with: written beside every file, and into `.attrs` of every frame."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from ssm.interface import crop_note
from ssm_platform.media import InputInfo
from ssm_platform.models import ModelDescription
from ssm_platform.read.rows import AnalysisOptions


def provenance(info: InputInfo, model: ModelDescription, name: str, options: AnalysisOptions) -> dict[str, Any]:
    """Notice, input, model, rule, settings and versions; `model` as it is shown, `name` as it was asked for."""
    crop = model.preprocessing.crop
    return {
        "notice": model.notice,
        "video": info.model_dump(mode="json"),
        "model": {
            "name": name,
            "version": model.version,
            "aus": list(model.vocabulary.aus),
            "expressions": list(model.vocabulary.expressions),
            "preprocessing": model.preprocessing.fingerprint(),
            "crop": None if crop is None else crop.text,
            "crop_note": crop_note(crop),
            "precision": model.precision,
            "rule": {str(au): rule.model_dump() for au, rule in model.rule.rules.items()},
            "rule_fitted": model.fitted,
            "abstention": None if model.abstention is None else model.abstention.model_dump(),
        },
        "analysis": options.model_dump(mode="json"),
        "software": {name: version(name) for name in ("ssm-platform", "torch", "opencv-python-headless", "av")},
    }
