"""timm without torch's compiler, all of which its import loads for two names: 1.7 s, a third of a first picture.

torchvision, which timm imports, takes one function of the compiler for an operator that no net of timm has; a module
stands in for it as long as the import lasts, and whoever asks that for something gets the real one's. One net of timm
marks methods with `torch.compiler.disable`; they get torch's own mark that waits for their first call.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any
from unittest.mock import patch

import torch
from torch._compile import _disable_dynamo

_COMPILER, _ASKED = "torch._dynamo", "torch._dynamo.utils"


@contextmanager
def compiler_absent() -> Iterator[None]:
    """Imports in the body of a `with` do not load the compiler; nothing changes where it is loaded."""
    if _COMPILER in sys.modules:
        yield
        return
    sys.modules[_ASKED] = stand_in = _Asked(_ASKED)
    try:
        with patch.object(torch.compiler, "disable", _disable_later):
            yield
    finally:
        _leave(stand_in)


class _Asked(ModuleType):
    """Has the one function, and gives its place to the real module when it is asked for another name."""

    @staticmethod
    def is_compile_supported(device_type: Any) -> Any:
        """The real answer."""
        return importlib.import_module(_ASKED).is_compile_supported(device_type)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # the import system's own questions
            raise AttributeError(name)
        _leave(self)
        return getattr(importlib.import_module(_ASKED), name)


def _leave(stand_in: ModuleType) -> None:
    if sys.modules.get(_ASKED) is stand_in:
        del sys.modules[_ASKED]


def _disable_later(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    return _disable_dynamo(fn, recursive)
