"""A reason not to start, and the error that lists all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Refusal:
    """One reason not to start: the setting to change, and why."""

    setting: str
    why: str

    def __str__(self) -> str:
        return f"{self.setting}: {self.why}"


class PreflightError(ValueError):
    """The run would hang or fail; the message lists every refusal."""

    def __init__(self, refusals: list[Refusal]) -> None:
        super().__init__("this run cannot start:\n" + "\n".join(f"  * {refusal}" for refusal in refusals))
        self.refusals = refusals


def require(refusals: Iterable[Refusal]) -> None:
    """Raises `PreflightError` where there is any refusal."""
    if found := list(refusals):
        raise PreflightError(found)
