"""The compiler's place while timm is imported; `tests/read/test_reader.py` sees that it is not loaded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from ssm.model.compiler import absent
from ssm.model.compiler.absent import compiler_absent


@pytest.fixture
def compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A compiler of the test's own, not loaded."""
    (tmp_path / "slow").mkdir()
    (tmp_path / "slow" / "__init__.py").touch()
    (tmp_path / "slow" / "utils.py").write_text("more = 3\ndef is_compile_supported(device): return device == 'cpu'\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(absent, "_COMPILER", "slow")
    monkeypatch.setattr(absent, "_ASKED", "slow.utils")
    return "slow"


@pytest.fixture(autouse=True)
def _forgotten() -> object:
    yield
    for name in ("slow", "slow.utils"):
        sys.modules.pop(name, None)


def test_one_function_waits_for_its_first_call(compiler: str) -> None:
    with compiler_absent():
        from slow.utils import is_compile_supported

        marked = torch.compiler.disable(lambda x: x + 1)
    assert not {compiler, "slow.utils"} & set(sys.modules)
    assert is_compile_supported("cpu")
    assert not is_compile_supported("tpu")
    assert compiler in sys.modules
    assert marked(1) == 2


def test_who_imports_more_gets_the_compiler(compiler: str) -> None:
    with compiler_absent():
        from slow.utils import more
    assert more == 3
    assert sys.modules["slow.utils"].more == 3
    with compiler_absent(), pytest.raises(ImportError, match="cannot import name 'nothing'"):
        from slow.utils import nothing  # noqa: F401


def test_an_import_that_fails_leaves_nothing_standing(compiler: str) -> None:
    disable = torch.compiler.disable
    with pytest.raises(ModuleNotFoundError), compiler_absent():
        import no_such_module  # noqa: F401
    assert "slow.utils" not in sys.modules
    assert torch.compiler.disable is disable
