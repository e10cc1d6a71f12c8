"""The cluster descriptions: valid for Ray's own validator, and the committed files are what the code gives."""

from __future__ import annotations

import runpy
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from kube_types import problems
from pydantic import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config

from serve.settings import Settings
from ssm_platform.cluster.aws import EXCLUDED, driver_check, ray_up
from ssm_platform.cluster.kubernetes import ray_job, ray_service
from ssm_platform.cluster.manifests import write_all
from ssm_platform.cluster.settings import DRIVERS, KEPT_CPUS, KEPT_GIB, MACHINES, ClusterSettings, NodeGroup
from ssm_platform.models.description import locate
from ssm_platform.runs.config import RunConfig
from ssm_platform.runs.preflight import check_config, cpus_needed
from ssm_platform.runs.recipes import tiny

REPOSITORY = Path(__file__).resolve().parents[2]
PROXY = REPOSITORY / "deploy" / "nginx.conf"


def of_kind(manifests: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """The one manifest of this kind."""
    (found,) = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def job(settings: ClusterSettings) -> dict[str, Any]:
    return of_kind(ray_job(settings), "RayJob")["spec"]


def service(settings: ClusterSettings) -> dict[str, Any]:
    return of_kind(ray_service(settings, PROXY.read_text()), "RayService")["spec"]


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
    for path in write_all(ClusterSettings(), tmp_path, PROXY):
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
        workers={"one": NodeGroup(instance="g6.xlarge", cpus=4, gpus=1, memory_gib=16, maximum=5)}
    )
    pods = job(settings)["rayClusterSpec"]["workerGroupSpecs"]
    assert [pod["groupName"] for pod in pods] == ["one"]
    limits = pods[0]["template"]["spec"]["containers"][0]["resources"]["limits"]
    node = ray_up(settings)["available_node_types"]["one"]
    assert (limits["cpu"] + KEPT_CPUS, limits["nvidia.com/gpu"]) == (node["resources"]["CPU"], node["resources"]["GPU"])
    assert pods[0]["maxReplicas"] == node["max_workers"] == 5


def test_the_service_names_the_application_we_serve() -> None:
    serve_config = yaml.safe_load(service(ClusterSettings())["serveConfigV2"])
    assert serve_config["applications"][0]["import_path"] == "serve.app:build"


def training_job(settings: ClusterSettings) -> RunConfig:
    """The run that the RayJob's command describes, as jobs/train.py reads it."""
    program, script, *words = shlex.split(job(settings)["entrypoint"])
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
    assert cpus_needed(config) <= sum(group.pod_cpus for group in kept), "the run would be refused before machines come"
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
    spec = service(settings)
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
    with pytest.raises(ValueError, match="/nowhere/runs/registry: no model or alias 'best'"):
        locate("best", None)


# -- what an engineer would apply ------------------------------------------------------------------------------------


def everything(settings: ClusterSettings) -> list[dict[str, Any]]:
    return [*ray_job(settings), *ray_service(settings, PROXY.read_text())]


def pods(settings: ClusterSettings) -> list[dict[str, Any]]:
    """All pod templates."""
    clusters = [job(settings)["rayClusterSpec"], service(settings)["rayClusterConfig"]]
    groups = [group for cluster in clusters for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]
    proxy = of_kind(ray_service(settings, PROXY.read_text()), "Deployment")["spec"]["template"]
    return [*(group["template"] for group in groups), proxy]


def test_every_manifest_has_the_published_types() -> None:
    for settings in (ClusterSettings(), ClusterSettings(bucket_role="arn:aws:iam::1:role/ssm")):
        for manifest in everything(settings):
            assert problems(manifest) == [], manifest["kind"]


def test_the_check_of_types_sees_what_is_wrong() -> None:
    cases = {
        "imagePullPolcy: unknown": lambda pod: pod["spec"]["containers"][0].update(imagePullPolcy="Always"),
        "is no int": lambda pod: pod["spec"]["containers"][0]["ports"][0].update(containerPort="8000"),
        "must not be": lambda pod: pod["spec"]["containers"][0].pop("name"),
        "is no bool": lambda pod: pod["spec"]["securityContext"].update(runAsNonRoot="yes"),
    }
    for reason, spoil in cases.items():
        manifest = of_kind(ray_job(ClusterSettings()), "RayJob")
        spoil(manifest["spec"]["rayClusterSpec"]["headGroupSpec"]["template"])
        assert any(reason in problem for problem in problems(manifest)), (reason, problems(manifest))
    misspelt = of_kind(ray_job(ClusterSettings()), "RayJob")
    misspelt["spec"]["backofLimit"] = misspelt["spec"].pop("backoffLimit")
    assert problems(misspelt) == ["RayJob.spec.backofLimit: unknown", "RayJob.spec.backoffLimit: absent"]


def test_requests_fit_the_nodes_that_are_named() -> None:
    """Beside kubelet's share (EKS's own formula), its daemons and, on the head, KubeRay's autoscaler of half a CPU."""
    for pod in pods(ClusterSettings())[:-1]:
        machine = MACHINES[pod["spec"]["nodeSelector"]["node.kubernetes.io/instance-type"]]
        kubelet_cpus = 0.06 + 0.01 + 2 * 0.005 + max(0, machine.cpus - 4) * 0.0025
        kubelet_gib = (255 + 11 * 234 + 100) / 1024
        container = pod["spec"]["containers"][0]
        beside = 0.5 if container["name"] == "ray-head" else 0
        requests = container["resources"]["requests"]
        assert requests["cpu"] + beside + kubelet_cpus + 0.2 <= machine.cpus
        assert int(requests["memory"].removesuffix("Gi")) + beside + kubelet_gib + 0.2 <= machine.memory_gib
        assert requests.get("nvidia.com/gpu", 0) == machine.gpus
        assert requests == container["resources"]["limits"]
        volumes = [int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi")) for volume in pod["spec"]["volumes"]]
        assert sum(volumes) <= int(requests["ephemeral-storage"].removesuffix("Gi"))


def test_a_group_that_names_a_machine_it_is_not_is_refused() -> None:
    with pytest.raises(ValidationError, match=r"g6\.xlarge has"):
        NodeGroup(instance="g6.xlarge", cpus=16, gpus=1, memory_gib=16, maximum=1)
    with pytest.raises(ValidationError, match="nothing is left"):
        NodeGroup(instance="t3.micro", cpus=2, memory_gib=1, maximum=1)
    spot = NodeGroup(instance="g6.xlarge", cpus=4, gpus=1, memory_gib=16, minimum=2, maximum=4, spot=True)
    with pytest.raises(ValidationError, match="on-demand"):
        ClusterSettings(serving={"gpu": spot})
    assert KEPT_GIB > 3


def test_the_services_replicas_find_room_on_the_machines_that_are_kept() -> None:
    settings = ClusterSettings()
    served = Settings.model_validate(yaml.safe_load(service(settings)["serveConfigV2"])["applications"][0]["args"])
    parts = (served.ingress, served.video, served.inference)
    assert all(part.replicas >= 2 for part in parts)
    kept = [group for group in settings.serving.values() for _ in range(group.minimum)]
    assert sum(part.replicas * part.cpus for part in parts) <= sum(group.pod_cpus for group in kept)
    assert served.device == "cuda"
    assert sum(part.replicas * part.gpus for part in parts) <= sum(group.gpus for group in kept)
    assert sum(part.replicas_max * part.gpus for part in parts) <= sum(
        group.gpus * group.maximum for group in settings.serving.values()
    )
    assert not any(group.spot for group in settings.serving.values())


def test_pods_run_as_nobody_in_particular_and_write_only_where_they_must() -> None:
    for pod in pods(ClusterSettings()):
        context = pod["spec"]["securityContext"]
        assert (context["runAsNonRoot"], context["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
        for container in pod["spec"]["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            mounted = {mount["name"] for mount in container["volumeMounts"]}
            assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}


def test_selectors_find_the_pods_they_mean() -> None:
    label = "app.kubernetes.io/name"
    manifests = ray_service(ClusterSettings(), PROXY.read_text())
    labels = {pod["metadata"]["labels"][label] for pod in pods(ClusterSettings())}
    wanted = {"ssm-serve", "ssm-serve-proxy"}
    for kind in ("PodDisruptionBudget", "NetworkPolicy"):
        specs = [manifest["spec"] for manifest in manifests if manifest["kind"] == kind]
        chosen = {(spec.get("selector") or spec.get("podSelector"))["matchLabels"][label] for spec in specs}
        assert chosen == wanted <= labels
    assert of_kind(manifests, "PodMonitor")["spec"]["selector"]["matchLabels"][label] == "ssm-serve"
    entering = next(m for m in manifests if m["kind"] == "NetworkPolicy")["spec"]["ingress"]
    assert all("from" in rule for rule in entering), "nobody reaches Ray without being named"
    configuration = of_kind(manifests, "ConfigMap")["data"]["nginx.conf"]
    assert "server ssm-serve-serve-svc:8000" in configuration
    assert "listen 8080" in configuration


def test_workers_have_the_instance_profile_and_the_driver_is_checked_where_the_machine_starts(tmp_path: Path) -> None:
    config = ray_up(ClusterSettings(instance_profile="mine", machine_image="ami-0123456789abcdef0"))
    for node in config["available_node_types"].values():
        assert node["node_config"]["IamInstanceProfile"] == {"Name": "mine"}
        assert node["node_config"]["ImageId"] == "ami-0123456789abcdef0"
    check = driver_check(ClusterSettings())
    assert config["initialization_commands"] == [check]
    for version, code in (("580.65.06", 0), ("570.1", 1), (None, 0)):
        tool = tmp_path / "nvidia-smi"
        tool.unlink(missing_ok=True)
        if version is not None:
            tool.write_text(f"#!/bin/sh\necho {version}\n")
            tool.chmod(0o755)
        done = subprocess.run(
            ["/bin/sh", "-c", check], env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True
        )
        assert done.returncode == code, (version, done.stderr)
        assert ("another machine_image" in done.stderr) == bool(code)


def test_the_driver_that_is_asked_for_runs_the_torch_that_is_installed() -> None:
    import torch

    settings = ClusterSettings()
    if torch.version.cuda is not None:
        assert settings.cuda == torch.version.cuda
    assert settings.driver >= dict(DRIVERS)[settings.cuda]
    with pytest.raises(ValidationError, match="needs 580"):
        ClusterSettings(driver=550)


def test_the_images_lock_holds_what_is_asked_for() -> None:
    """Every dependency of the package and of the extras in the image is pinned once, at the version that was tested."""
    import tomllib

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    def pinned(path: Path) -> dict[str, str]:
        pins = [Requirement(line) for line in path.read_text().splitlines() if line and not line.startswith("#")]
        versions = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in pins}
        assert len(versions) == len(pins)
        return versions

    locked = pinned(REPOSITORY / "deploy" / "requirements.txt")
    assert locked.items() <= pinned(REPOSITORY / "constraints.txt").items()
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for text in [*project["dependencies"], *extras["platform"], *extras["minilm"], *extras["tracing"]]:
        wanted = Requirement(text)
        if wanted.marker is None or wanted.marker.evaluate({"platform_machine": "x86_64"}):
            assert wanted.specifier.contains(locked[canonicalize_name(wanted.name)]), text
