"""The registry: immutable, atomic, checked; on a folder and on a real S3 server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from ssm_platform.base.storage import open_storage
from ssm_platform.models.registry import Registry, RegistryError


@pytest.fixture(scope="module")
def s3_endpoint() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def registry(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, s3_endpoint: str
) -> Registry:
    if request.param == "folder":
        return Registry(tmp_path / "registry")
    for name, value in {
        "AWS_ENDPOINT_URL": s3_endpoint, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket="models")
    return Registry(f"s3://models/{tmp_path.name}", cache=tmp_path / "cache")


def saved(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(weights)
    return folder


def test_what_is_published_comes_back(registry: Registry, tmp_path: Path) -> None:
    version = registry.publish(saved(tmp_path / "a"), run="quickstart", aliases=("latest", "production"))
    assert registry.versions() == [version]
    assert registry.aliases() == {"latest": version, "production": version}
    for name in ("latest", "production", version):
        folder = registry.resolve(name)
        assert (folder / "model.safetensors").read_bytes() == b"weights"


def test_an_alias_moves_and_the_old_version_stays(registry: Registry, tmp_path: Path) -> None:
    old = registry.publish(saved(tmp_path / "a"), run="r")
    new = registry.publish(saved(tmp_path / "b", b"better"), run="r")
    assert registry.version("latest") == new != old
    assert (registry.resolve(old) / "model.safetensors").read_bytes() == b"weights"
    registry.point("latest", old)
    assert registry.version("latest") == old


def test_the_same_model_twice_is_one_version(registry: Registry, tmp_path: Path) -> None:
    folder = saved(tmp_path / "a")
    assert registry.publish(folder, run="r") == registry.publish(folder, run="r")
    assert len(registry.versions()) == 1


def test_a_half_written_model_is_invisible(registry: Registry, tmp_path: Path) -> None:
    version = registry.publish(saved(tmp_path / "a"), run="r")
    registry._storage.delete(f"models/{version}/complete.json")
    assert registry.versions() == []
    with pytest.raises(RegistryError, match="no complete model"):
        registry.resolve("latest")


def test_a_changed_file_is_refused(registry: Registry, tmp_path: Path) -> None:
    version = registry.publish(saved(tmp_path / "a"), run="r")
    registry._storage.write(f"models/{version}/model.safetensors", b"tampered")
    with pytest.raises(RegistryError, match=r"model\.safetensors.*changed"):
        registry.resolve("latest")


def test_a_damaged_model_is_mended_by_publishing_it_again(registry: Registry, tmp_path: Path) -> None:
    folder = saved(tmp_path / "a")
    version = registry.publish(folder, run="r")
    for key in ("model.safetensors", "complete.json"):
        registry._storage.write(f"models/{version}/{key}", b"")
        with pytest.raises(RegistryError, match=key):
            registry.resolve("latest")
        assert registry.publish(folder, run="r") == version
        assert (registry.resolve("latest") / "model.safetensors").read_bytes() == b"weights"


def test_a_model_that_is_replaced_while_it_is_published_is_no_version(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(tmp_path / "a")
    holds = registry._holds

    def replaced(*asked: Any) -> bool:
        (folder / "model.safetensors").write_bytes(b"another")
        return holds(*asked)

    monkeypatch.setattr(registry, "_holds", replaced)
    with pytest.raises(RegistryError, match=r"model\.safetensors: was replaced while it was published"):
        registry.publish(folder, run="r")
    assert registry.versions() == []


def test_an_alias_that_is_no_text_is_named(registry: Registry) -> None:
    registry._storage.write("aliases/latest", b"\xff\xfe")
    with pytest.raises(RegistryError, match="aliases/latest: not the name of a version"):
        registry.resolve("latest")


def test_an_unknown_name_says_what_there_is(registry: Registry, tmp_path: Path) -> None:
    registry.publish(saved(tmp_path / "a"), run="r")
    with pytest.raises(RegistryError, match="no model or alias 'prodction'; there is: latest, r-"):
        registry.resolve("prodction")


@pytest.mark.parametrize("name", ["../etc", "", "a/b", ".hidden", "x" * 200])
def test_names_cannot_leave_the_registry(tmp_path: Path, name: str) -> None:
    with pytest.raises(RegistryError, match="cannot name"):
        Registry(tmp_path).resolve(name)


def test_a_file_list_cannot_leave_the_model(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    open_storage(tmp_path).write("models/evil/complete.json", b'{"../../secret": "0"}')
    with pytest.raises(RegistryError, match="outside the model"):
        registry.resolve("evil")


def test_what_is_not_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(RegistryError, match="not a saved model"):
        Registry(tmp_path / "registry").publish(tmp_path / "empty", run="r")
