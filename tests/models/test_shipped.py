"""The package's own model: used where no model is named and none is registered, and only where the package has one."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from ssm_platform.models import description
from ssm_platform.models.description import locate, pinned
from ssm_platform.models.registry import Registry
from ssm_platform.models.shipped import LARGEST, ship, shipped_model

FACTS = {"metrics": {"fe": 1}, "data": {"run": "r"}, "rule": {"rules": []}}


def saved(folder: Path, facts: dict[str, object], weights: int = 10) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"facts": facts}))
    (folder / "model.safetensors").write_bytes(bytes(weights))
    return folder


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that comes with a model."""
    folder = ship(saved(tmp_path / "trained", FACTS), tmp_path / "package")
    monkeypatch.setattr(description, "shipped_model", lambda: shipped_model(folder))
    return folder


def test_read_with_where_nothing_is_named_or_registered_and_said(
    package: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = str(tmp_path / "registry")
    assert locate("latest", registry) == package
    with caplog.at_level(logging.WARNING):
        assert pinned("latest", registry) == "shipped"
    assert "expressions: real faces; action units: drawn faces, experimental" in caplog.text
    assert locate("shipped", registry) == package


def test_a_registered_model_comes_first(package: Path, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry")
    version = registry.publish(saved(tmp_path / "mine", {}), run="mine")
    assert pinned("latest", str(tmp_path / "registry")) == version
    assert locate("latest", str(tmp_path / "registry")) != package
    assert pinned("shipped", str(tmp_path / "registry")) == "shipped"


def test_another_alias_is_never_replaced(package: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no model or alias 'production'"):
        locate("production", str(tmp_path / "registry"))


def test_a_package_without_a_model_refuses_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(description, "shipped_model", lambda: shipped_model(tmp_path / "none"))
    with pytest.raises(ValueError, match="nothing yet"):
        locate("latest", str(tmp_path / "registry"))
    with pytest.raises(ValueError, match="no model comes with this package"):
        pinned("shipped", str(tmp_path / "registry"))


def test_only_a_small_evaluated_model_is_shipped(tmp_path: Path) -> None:
    target = tmp_path / "package"
    with pytest.raises(ValueError, match="not a saved model"):
        ship(tmp_path, target)
    with pytest.raises(ValueError, match="says nothing of its metrics, data, rule; evaluate its run first"):
        ship(saved(tmp_path / "bare", {}), target)
    with pytest.raises(ValueError, match=r"8\.0 MiB; a model in the package has at most 8"):
        ship(saved(tmp_path / "large", FACTS, LARGEST), target)
    assert not target.exists()
    first, second = saved(tmp_path / "one", FACTS), saved(tmp_path / "two", FACTS, 20)
    ship(first, target)
    ship(second, target)
    assert (target / "model.safetensors").stat().st_size == 20
