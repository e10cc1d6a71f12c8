"""Tensors out of a downloaded torch pickle without running anything that lies in it (method, section 8).

A pickle is a program. Here it may rebuild tensors and plain containers; an object of any other class (the released
files hold a plot recorder) becomes an empty stand-in, and a call of anything else is refused by name.
"""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import IO, Any

import torch
from torch import Tensor

_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
    ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
    ("torch", "Size"): torch.Size,
}
_INERT_CALLS = frozenset({
    ("copyreg", "_reconstructor"), ("copy_reg", "_reconstructor"), ("__builtin__", "set"), ("__builtin__", "object"),
    ("numpy.core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"), ("numpy._core.multiarray", "scalar"), ("numpy", "dtype"),
    ("_codecs", "encode"), ("collections", "defaultdict"),
    ("builtins", "list"), ("builtins", "dict"), ("builtins", "set"), ("builtins", "object"), ("torch", "device"),
})  # fmt: skip
"""Harmless constructors that surround a recorder's arrays: they are not called either, only stood in for."""


_BROKEN = (
    ValueError, RuntimeError, EOFError, OSError, pickle.UnpicklingError, AttributeError, TypeError, LookupError,
    AssertionError, ImportError, zipfile.BadZipFile, zlib.error, struct.error, OverflowError, MemoryError,
)  # fmt: skip
"""What torch and pickle raise on bytes that are not theirs."""


class _StandInType(type):
    """Calling a stand-in is what a pickle does to run code; making an empty instance of it is not."""

    def __call__(cls, *args: object, **kwargs: object) -> object:
        name = f"{cls.__module__}.{cls.__qualname__}"
        if (cls.__module__, cls.__qualname__) in _INERT_CALLS:
            return super().__call__()
        raise pickle.UnpicklingError(f"refused: the file asks to call {name}, which is code and not a tensor")


class _StandIn(metaclass=_StandInType):
    """Takes the place of an object whose class we neither import nor run."""

    def __new__(cls, *args: object, **kwargs: object) -> _StandIn:
        return object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        """Drops it."""

    def __setitem__(self, key: object, value: object) -> None:
        """Drops it."""

    def append(self, value: object) -> None:
        """Drops it."""

    def extend(self, values: object) -> None:
        """Drops it."""

    def add(self, value: object) -> None:
        """Drops it."""


class _TensorUnpickler(pickle.Unpickler):
    """Resolves names by table; never imports."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        return _StandInType(name, (_StandIn,), {"__module__": module, "__qualname__": name})


def _load(file: IO[bytes], **options: Any) -> object:
    return _TensorUnpickler(file, **options).load()


def _as_pickle_module() -> Any:
    """What `torch.load` wants to be handed in the place of the module `pickle`."""
    module: Any = ModuleType("ssm_tensor_pickle")
    module.Unpickler, module.load = _TensorUnpickler, _load
    return module


def read_torch_pickle(path: Path) -> dict[str, Tensor]:
    """The state dictionary of a `.pt`/`.pth` file: under the key `state_dict` or bare; nothing else of it.

    ValueError for a file that is absent, truncated, a TorchScript archive, something else, or that asks to run code.
    """
    content = _guarded(path, lambda: _torch_load(path))
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a dictionary of tensors; the file holds {type(content).__name__}")
    state = content.get("state_dict", content)
    if not isinstance(state, dict):
        raise ValueError(f"{path}: 'state_dict' is {type(state).__name__}; expected a dictionary of tensors")
    tensors = {name: value.detach() for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ValueError(f"{path}: the file holds no tensors; its keys are {sorted(map(str, state))[:8]}")
    return tensors


def _torch_load(path: Path) -> object:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any(name.endswith("constants.pkl") for name in archive.namelist()):
                raise ValueError("a TorchScript archive holds a program, not only tensors")
    return torch.load(path, map_location="cpu", weights_only=False, pickle_module=_as_pickle_module())


def _guarded(path: Path, read: Callable[[], object]) -> object:
    """Turns what torch and pickle raise on a broken file into a ValueError with the path."""
    try:
        return read()
    except FileNotFoundError as error:
        raise ValueError(f"{path}: the file is absent") from error
    except _BROKEN as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: not a readable file of tensors: {reason}") from error
