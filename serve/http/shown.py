"""Whether an answer names expressions: as its request asks, unless the service is set to action units only."""

from __future__ import annotations

from serve.errors import Refusal
from serve.settings import Settings
from ssm_platform.models import Expressions


def shown_to(settings: Settings, asked: Expressions | None) -> Expressions:
    """What holds for a request that asks so, or does not say. 403 where it asks for what is switched off."""
    if settings.expressions == "off" and asked == "on":
        raise Refusal(403, "expressions are switched off here: this service names action units only")
    return asked or settings.expressions
