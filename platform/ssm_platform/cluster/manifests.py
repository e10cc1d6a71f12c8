"""Where a cluster comes from: one typed description, three outputs.

`ClusterSettings` says what the machines are; `ray_up` turns it into the cluster.yaml of `ray up` on AWS,
`ray_job` and `ray_service` into Kubernetes manifests for the KubeRay operator. The committed files are
exactly what the defaults give (a test holds that); other settings are written by `python jobs/manifests.py`.
Knows nothing of training: the entry points it names are the scripts in `jobs/` and the app in `serve/`, and the words
of the training command are given.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, field_validator

PROJECT_DIR = "/home/ray/ssm-platform"
TOKEN_FILE = "/home/ray/.ray/auth_token"
TOKEN_VARIABLE = "SSM_TOKEN"
EXCLUDED = (".git", ".venv", "runs", "data", "docs", "**/__pycache__", ".mypy_cache", ".ruff_cache", ".hypothesis")
"""What never travels to a cluster: environments, outputs and caches."""

HEAD_PORTS = {"gcs": 6379, "dashboard": 8265, "client": 10001, "serve": 8000}


class NodeGroup(BaseModel):
    """One kind of worker machine and how many of it the autoscaler may hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    instance: str = Field(description="AWS instance type")
    cpus: int = Field(ge=1, description="CPUs Ray may use on one machine")
    gpus: int = Field(default=0, ge=0, description="GPUs on one machine")
    memory_gib: int = Field(ge=1, description="memory a Kubernetes pod of this group asks for, GiB")
    minimum: int = Field(
        default=0,
        ge=0,
        description="machines kept at all times; a run needs room for one worker when it starts. Not kept for a "
        "service, whose replicas ask for what they need",
    )
    maximum: int = Field(ge=0, description="machines at most")
    spot: bool = Field(default=False, description="bid on spare capacity: cheaper, and may go away at any moment")


class ClusterSettings(BaseModel):
    """What a cluster is made of. Defaults: a CPU head, on-demand and spot GPU trainers, spot CPU decoders, S3."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default="ssm", pattern=r"^[a-z][a-z0-9-]{0,30}$", description="name of the cluster")
    region: str = Field(default="eu-central-1", description="AWS region")
    image: str = Field(
        default="rayproject/ray:2.60.0-py311-gpu", description="container image with Ray and Python 3.11"
    )
    kube_image: str = Field(
        default="ssm-platform:0.1.0",
        description="the image of deploy/Dockerfile, in a registry the cluster can pull from",
    )
    ray_version: str = Field(
        default="2.60.0", description="Ray in that image; must be the one that jobs are submitted with"
    )
    storage: str = Field(default="s3://ssm-platform/runs", description="where checkpoints, models and reports go")
    train: tuple[str, ...] = Field(
        default=(
            "--recipe=published_bp4d_dfew",
            "--data.corpora.bp4d.root=null",
            "--data.corpora.bp4d.manifest=s3://ssm-platform/shards/bp4d/manifest.parquet",
            "--data.corpora.dfew.root=null",
            "--data.corpora.dfew.manifest=s3://ssm-platform/shards/dfew/manifest.parquet",
        ),
        min_length=1,
        description="words after `jobs/train.py` in the training job: a recipe, and data that every machine can read",
    )
    token_secret: str = Field(
        default="ssm-token", description="Kubernetes Secret whose key `token` holds what clients of the service send"
    )
    head: NodeGroup = NodeGroup(instance="m6i.2xlarge", cpus=8, memory_gib=32, minimum=1, maximum=1)
    workers: dict[str, NodeGroup] = Field(
        default={
            "gpu": NodeGroup(instance="g6.4xlarge", cpus=16, gpus=1, memory_gib=56, minimum=1, maximum=2),
            "gpu-spot": NodeGroup(instance="g6.4xlarge", cpus=16, gpus=1, memory_gib=56, maximum=8, spot=True),
            "decode-spot": NodeGroup(instance="c6i.4xlarge", cpus=16, memory_gib=28, maximum=8, spot=True),
        },
        description="worker groups by name",
    )
    idle_minutes: int = Field(default=10, ge=1, description="an idle worker is given back after this long")

    @field_validator("storage")
    @classmethod
    def _shared_storage(cls, uri: str) -> str:
        if not uri.startswith("s3://"):
            raise ValueError(f"storage {uri!r}: machines of a cluster share no disk, so it must start with s3://")
        return uri


def ray_up(settings: ClusterSettings) -> dict[str, Any]:
    """The configuration of `ray up`: a head that runs no work, and workers that come and go."""
    return {
        "cluster_name": settings.name,
        "max_workers": sum(group.maximum for group in settings.workers.values()),
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": settings.idle_minutes,
        "provider": {"type": "aws", "region": settings.region, "cache_stopped_nodes": False},
        "auth": {"ssh_user": "ubuntu"},
        "docker": {
            "image": settings.image,
            "container_name": "ray",
            "pull_before_run": True,
            "run_options": ["--ulimit nofile=65536:65536", "--shm-size=16gb"],
        },
        "available_node_types": {
            "head": _aws_node(settings.head, resources={"CPU": 0}),
            **{name: _aws_node(group) for name, group in settings.workers.items()},
        },
        "head_node_type": "head",
        # The laptop's token (`ray get-auth-token --generate`) opens the cluster, and nothing else does.
        "file_mounts": {PROJECT_DIR: ".", TOKEN_FILE: "~/.ray/auth_token"},
        "rsync_exclude": list(EXCLUDED),
        "rsync_filter": [".gitignore"],
        "setup_commands": [f"cd {PROJECT_DIR} && pip install --quiet -e '.[platform,minilm]'"],
        "head_start_ray_commands": [
            "ray stop",
            f"cd {PROJECT_DIR} && SSM_STORAGE={settings.storage} RAY_AUTH_MODE=token ray start --head"
            f" --port={HEAD_PORTS['gcs']} --dashboard-host=127.0.0.1 --autoscaling-config=~/ray_bootstrap_config.yaml",
        ],
        "worker_start_ray_commands": [
            "ray stop",
            f"cd {PROJECT_DIR} && SSM_STORAGE={settings.storage} RAY_AUTH_MODE=token ray start"
            f" --address=$RAY_HEAD_IP:{HEAD_PORTS['gcs']}",
        ],
    }


def _aws_node(group: NodeGroup, resources: dict[str, int] | None = None) -> dict[str, Any]:
    node: dict[str, Any] = {
        "InstanceType": group.instance,
        "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 200, "VolumeType": "gp3"}}],
    }
    if group.spot:
        node["InstanceMarketOptions"] = {"MarketType": "spot"}
    owned = {"CPU": group.cpus} | ({"GPU": group.gpus} if group.gpus else {})
    limits = {} if resources else {"min_workers": group.minimum, "max_workers": group.maximum}
    return {"node_config": node, "resources": resources or owned, **limits}


def ray_job(settings: ClusterSettings) -> dict[str, Any]:
    """A KubeRay RayJob: the training job on a cluster of its own, which ends with it."""
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": f"{settings.name}-train"},
        "spec": {
            "entrypoint": shlex.join(
                ["python", f"{PROJECT_DIR}/jobs/train.py", f"--storage={settings.storage}", *settings.train]
            ),
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 3600,
            "backoffLimit": 3,
            "rayClusterSpec": _kube_cluster(settings, _environment(settings)),
        },
    }


def ray_service(settings: ClusterSettings) -> dict[str, Any]:
    """A KubeRay RayService: the HTTP application, replaced without a gap when the manifest changes."""
    application = {
        "applications": [
            {
                "name": "ssm",
                "import_path": "serve.app:build",
                "route_prefix": "/",
                "args": {
                    "model": "production",
                    "registry": f"{settings.storage}/registry",
                    "token_variable": TOKEN_VARIABLE,
                },
            }
        ]
    }
    token = {"secretKeyRef": {"name": settings.token_secret, "key": "token"}}
    environment = [*_environment(settings), {"name": TOKEN_VARIABLE, "valueFrom": token}]
    from_zero = {name: group.model_copy(update={"minimum": 0}) for name, group in settings.workers.items()}
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": f"{settings.name}-serve"},
        "spec": {
            "serveConfigV2": yaml.safe_dump(application, sort_keys=False),
            "rayClusterConfig": _kube_cluster(settings.model_copy(update={"workers": from_zero}), environment),
        },
    }


def _environment(settings: ClusterSettings) -> list[dict[str, Any]]:
    return [{"name": "SSM_STORAGE", "value": settings.storage}]


def _kube_cluster(settings: ClusterSettings, environment: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "rayVersion": settings.ray_version,
        "enableInTreeAutoscaling": True,
        "authOptions": {"mode": "token"},
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0", "dashboard-host": "0.0.0.0"},
            "template": _pod("ray-head", settings.kube_image, settings.head, environment, ports=HEAD_PORTS),
        },
        "workerGroupSpecs": [
            {
                "groupName": name,
                "replicas": group.minimum,
                "minReplicas": group.minimum,
                "maxReplicas": group.maximum,
                "rayStartParams": {},
                "template": _pod("ray-worker", settings.kube_image, group, environment),
            }
            for name, group in settings.workers.items()
        ],
    }


def _pod(
    name: str,
    image: str,
    group: NodeGroup,
    environment: list[dict[str, Any]],
    ports: dict[str, int] | None = None,
) -> dict[str, Any]:
    amounts: dict[str, str | int] = {"cpu": group.cpus, "memory": f"{group.memory_gib}Gi"}
    if group.gpus:
        amounts["nvidia.com/gpu"] = group.gpus
    container: dict[str, Any] = {
        "name": name,
        "image": image,
        "env": environment,
        "resources": {"limits": amounts, "requests": amounts},
    }
    if ports:
        container["ports"] = [{"name": port, "containerPort": number} for port, number in ports.items()]
    pod: dict[str, Any] = {"spec": {"containers": [container]}}
    if group.spot:
        pod["spec"]["nodeSelector"] = {"eks.amazonaws.com/capacityType": "SPOT"}
    return pod


class _InFull(yaml.SafeDumper):
    """Writes what stands in several places in each of them, not as an alias of the first."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_all(settings: ClusterSettings, folder: Path) -> list[Path]:
    """Write cluster.yaml and the Kubernetes manifests under `folder`; returns their paths."""
    outputs = {
        "cluster.yaml": ray_up(settings),
        "deploy/rayjob.yaml": ray_job(settings),
        "deploy/rayservice.yaml": ray_service(settings),
    }
    written = []
    for name, content in outputs.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        header = "# Written by `python jobs/manifests.py` from ssm_platform.cluster.ClusterSettings; change it there.\n"
        path.write_text(header + yaml.dump(content, Dumper=_InFull, sort_keys=False, width=120))
        written.append(path)
    return written
