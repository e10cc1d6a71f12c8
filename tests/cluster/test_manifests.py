"""The cluster descriptions: valid for Ray's own validator, and the committed files are what the code gives."""

from __future__ import annotations

import runpy
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from serve.settings import Settings
from ssm_platform.cluster.manifests import EXCLUDED, ClusterSettings, NodeGroup, ray_job, ray_service, ray_up, write_all
from ssm_platform.models.description import locate
from ssm_platform.runs.config import RunConfig
from ssm_platform.runs.preflight import check_config, cpus_needed
from ssm_platform.runs.recipes import tiny

REPOSITORY = Path(__file__).resolve().parents[2]


def test_ray_accepts_the_cluster_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0" * 64)
    (tmp_path / ".gitignore").touch()
    config = yaml.safe_load((REPOSITORY / "cluster.yaml").read_text())
    validate_config(prepare_config(config))


def test_ray_refuses_a_misspelt_key() -> None:
    config = ray_up(ClusterSettings()) | {"max_wokers": 3}
    with pytest.raises(Exception, match="max_wokers"):
        validate_config(prepare_config(config))


def test_committed_files_are_the_generated_ones(tmp_path: Path) -> None:
    for path in write_all(ClusterSettings(), tmp_path):
        assert path.read_text() == (REPOSITORY / path.relative_to(tmp_path)).read_text(), (
            f"{path.name} is stale: run `python jobs/manifests.py`"
        )


def test_images_leave_out_what_clusters_do() -> None:
    assert tuple((REPOSITORY / ".dockerignore").read_text().split()) == EXCLUDED


def test_spot_machines_are_asked_for_as_spot() -> None:
    nodes = ray_up(ClusterSettings())["available_node_types"]
    assert nodes["gpu-spot"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in nodes["gpu"]["node_config"]
    assert nodes["head"]["resources"] == {"CPU": 0}, "the head runs no work"


def test_kubernetes_and_aws_agree_on_machines() -> None:
    settings = ClusterSettings(
        workers={"one": NodeGroup(instance="g6.xlarge", cpus=3, gpus=1, memory_gib=9, maximum=5)}
    )
    pods = ray_job(settings)["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert [pod["groupName"] for pod in pods] == ["one"]
    limits = pods[0]["template"]["spec"]["containers"][0]["resources"]["limits"]
    node = ray_up(settings)["available_node_types"]["one"]
    assert (limits["cpu"], limits["nvidia.com/gpu"]) == (node["resources"]["CPU"], node["resources"]["GPU"]) == (3, 1)
    assert pods[0]["maxReplicas"] == node["max_workers"] == 5


def test_the_service_names_the_application_we_serve() -> None:
    serve_config = yaml.safe_load(ray_service(ClusterSettings())["spec"]["serveConfigV2"])
    assert serve_config["applications"][0]["import_path"] == "serve.app:build"


def training_job(settings: ClusterSettings) -> RunConfig:
    """The run that the RayJob's command describes, as jobs/train.py reads it."""
    program, script, *words = shlex.split(ray_job(settings)["spec"]["entrypoint"])
    assert (program, script.endswith("/jobs/train.py")) == ("python", True)
    config, print_only = runpy.run_path(str(REPOSITORY / "jobs" / "train.py"))["parse"](words)
    assert isinstance(config, RunConfig)
    assert not print_only
    return config


def test_the_training_job_reads_what_every_machine_can_read_and_finds_room_at_its_start() -> None:
    settings = ClusterSettings()
    config = training_job(settings)
    assert config.storage == settings.storage
    assert [corpus.root for corpus in config.data.corpora] == [None, None]
    assert all((corpus.manifest or "").startswith("s3://") for corpus in config.data.corpora)
    kept = [group for group in settings.workers.values() for _ in range(group.minimum)]
    assert cpus_needed(config) <= sum(group.cpus for group in kept), "the run would be refused before machines come"
    assert config.scale.gpu
    assert check_config(config) == []
    assert config.scale.bounds[0] <= sum(group.gpus for group in kept)


def test_the_training_command_is_a_setting_and_its_words_stay_whole() -> None:
    words = ("--recipe=tiny", "--data.corpora.bp4d.root=/mnt/corpora/BP4D 2013", "--scale.workers=[1, 8]")
    config = training_job(ClusterSettings(train=words))
    assert config.data.corpora[0].root == "/mnt/corpora/BP4D 2013"
    assert config.scale.bounds == (1, 8)
    with pytest.raises(ValidationError, match="train"):
        ClusterSettings(train=())  # jobs/train.py alone is the quickstart, which writes to the head's disk


def test_the_service_takes_its_token_from_a_secret_and_the_training_job_gets_none() -> None:
    settings = ClusterSettings(token_secret="other")
    spec = ray_service(settings)["spec"]
    (application,) = yaml.safe_load(spec["serveConfigV2"])["applications"]
    variable = Settings.model_validate(application["args"]).token_variable
    for container in containers(spec["rayClusterConfig"]):
        given = {entry["name"]: entry.get("valueFrom") for entry in container["env"]}
        assert given[variable] == {"secretKeyRef": {"name": "other", "key": "token"}}
    assert "other" not in str(ray_job(settings))


def containers(cluster: dict[str, Any]) -> list[dict[str, Any]]:
    """The containers of a Kubernetes cluster: the head's, then one of each group."""
    pods = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    return [pod["template"]["spec"]["containers"][0] for pod in pods]


def test_a_service_keeps_no_machines_of_its_own() -> None:
    groups = ray_service(ClusterSettings())["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    assert {group["minReplicas"] for group in groups} == {0}


def test_storage_on_one_machines_disk_is_refused() -> None:
    with pytest.raises(ValidationError, match="share no disk"):
        ClusterSettings(storage="/tmp/runs")


def test_the_storage_of_a_cluster_is_where_its_runs_and_models_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Machines get `SSM_STORAGE`; a run that names no storage goes there, and aliases are looked up beside it."""
    started = ray_up(ClusterSettings(storage="s3://bucket/runs"))["worker_start_ray_commands"]
    assert any("SSM_STORAGE=s3://bucket/runs " in command for command in started)
    assert tiny().storage == "runs"
    monkeypatch.setenv("SSM_STORAGE", "s3://bucket/runs")
    assert tiny().storage == "s3://bucket/runs"
    monkeypatch.setenv("SSM_STORAGE", "/nowhere/runs")
    with pytest.raises(ValueError, match="/nowhere/runs/registry: no model or alias 'latest'"):
        locate("latest", None)
