"""A value that Ray's object store holds once, however many processes and streams it is sent to."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Generic, TypeVar, cast

import ray

T = TypeVar("T")


class Shared(Generic[T]):
    """What is pickled of it is a reference; where it arrives, arrays and tables are read in place, without a copy."""

    def __init__(self, value: T) -> None:
        self.value = value

    @cached_property
    def _reference(self) -> Any:
        return ray.put(self.value)

    def __reduce__(self) -> tuple[type[_Arrived[T]], tuple[Any]]:
        return _Arrived, (self._reference,)


class _Arrived(Shared[T]):
    """It is looked up where it is used first, so whoever only passes it on never holds it."""

    def __init__(self, reference: Any) -> None:
        self._reference = reference

    @cached_property
    def value(self) -> T:  # type: ignore[override]
        return cast(T, ray.get(self._reference))
