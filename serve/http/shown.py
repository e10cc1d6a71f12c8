"""What an answer holds: expressions as its request asks, unless the service is set to action units only; doubts and
heat maps where it asks for them.
"""

from __future__ import annotations

from typing import Literal

from serve.errors import Refusal
from serve.settings import Settings
from ssm_platform.models import Expressions, ModelDescription

Switch = Literal["on", "off"]


def shown_to(settings: Settings, asked: Expressions | None) -> Expressions:
    """What holds for a request that asks so, or does not say. 403 where it asks for what is switched off."""
    if settings.expressions == "off" and asked == "on":
        raise Refusal(403, "expressions are switched off here: this service names action units only")
    return asked or settings.expressions


def answered_of(
    model: ModelDescription, expressions: Expressions, uncertainty: Switch, where: Switch = "off"
) -> ModelDescription:
    """The model as it is answered of. 422 where it has no doubts to tell, or looks at no places."""
    try:
        return model.shown(expressions, uncertainty == "on", where == "on")
    except ValueError as error:
        asked = "uncertainty" if uncertainty == "on" and not model.evidence else "where"
        raise Refusal(422, f"{asked}: {error}") from None
