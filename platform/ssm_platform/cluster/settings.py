"""What a cluster is made of: typed, checked against the machines that are named. Everything written comes from here."""

from __future__ import annotations

from typing import NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator


class Machine(NamedTuple):
    """What an AWS instance type has."""

    cpus: int
    memory_gib: int
    gpus: int = 0


MACHINES = {
    "m6i.xlarge": Machine(4, 16),
    "m6i.2xlarge": Machine(8, 32),
    "m6i.4xlarge": Machine(16, 64),
    "c6i.4xlarge": Machine(16, 32),
    "c6i.8xlarge": Machine(32, 64),
    "g6.xlarge": Machine(4, 16, 1),
    "g6.2xlarge": Machine(8, 32, 1),
    "g6.4xlarge": Machine(16, 64, 1),
    "g6.8xlarge": Machine(32, 128, 1),
    "g6.12xlarge": Machine(48, 192, 4),
}
"""AWS's published sizes of the types we name; a type that is not here is taken at its word."""

KEPT_CPUS, KEPT_GIB = 1, 4
"""What a Kubernetes node keeps: kubelet's and the system's share (EKS: below 0.3 CPU and 3 GiB on these), daemons."""


class NodeGroup(BaseModel):
    """One kind of worker machine and how many of it the autoscaler may hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    instance: str = Field(description="AWS instance type")
    cpus: int = Field(ge=1, description="CPUs of one machine")
    gpus: int = Field(default=0, ge=0, description="GPUs on one machine")
    memory_gib: int = Field(ge=1, description="memory of one machine, GiB")
    minimum: int = Field(
        default=0, ge=0, description="machines kept at all times; a run needs room for one worker when it starts"
    )
    maximum: int = Field(ge=0, description="machines at most")
    spot: bool = Field(default=False, description="bid on spare capacity: cheaper, and may go away at any moment")

    @model_validator(mode="after")
    def _as_sold(self) -> Self:
        machine = MACHINES.get(self.instance)
        if machine is not None and (self.cpus, self.memory_gib, self.gpus) != machine:
            said = f"cpus {self.cpus}, memory_gib {self.memory_gib}, gpus {self.gpus}"
            raise ValueError(f"{self.instance} has {machine}: {said} is another machine")
        if self.maximum < self.minimum:
            raise ValueError(f"maximum is {self.maximum}: must be at least minimum, {self.minimum}")
        if min(self.cpus - KEPT_CPUS, self.memory_gib - KEPT_GIB) < 1:
            raise ValueError(f"{self.instance}: nothing is left beside the {KEPT_CPUS} CPU and {KEPT_GIB} GiB kept")
        return self

    @property
    def pod_cpus(self) -> int:
        """CPUs that a pod may ask for: a request of the whole machine is never scheduled."""
        return self.cpus - KEPT_CPUS

    @property
    def pod_memory_gib(self) -> int:
        """Memory likewise."""
        return self.memory_gib - KEPT_GIB


class ClusterSettings(BaseModel):
    """What a cluster is made of. Defaults: a CPU head, on-demand and spot GPU trainers, spot CPU decoders, S3."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default="ssm", pattern=r"^[a-z][a-z0-9-]{0,30}$", description="name of the cluster")
    region: str = Field(default="eu-central-1", description="AWS region")
    image: str = Field(
        default="rayproject/ray:2.60.0-py311-gpu", description="container image of AWS machines, Ray and Python 3.11"
    )
    machine_image: str | None = Field(
        default=None, pattern=r"^ami-[0-9a-f]{8,17}$", description="AMI of AWS machines; None: Ray's default"
    )
    driver: int = Field(
        default=580, ge=1, description="oldest NVIDIA driver that a GPU machine may have; an older one ends its start"
    )
    cuda: str = Field(
        default="13.0",
        pattern=r"^\d+\.\d+$",
        description="CUDA that the installed torch was built for",
    )
    instance_profile: str = Field(
        default="ssm-ray",
        min_length=1,
        description="IAM instance profile of all machines; may use storage",
    )
    kube_image: str = Field(
        default="ssm-platform:0.1.0",
        description="the image of deploy/Dockerfile, in a registry the cluster can pull from",
    )
    kube_service_account: str = Field(default="ssm", description="service account of the pods")
    bucket_role: str | None = Field(
        default=None, description="ARN of the IAM role that the service account takes on (IRSA); None: the node's own"
    )
    proxy_image: str = Field(default="nginx:1.28", description="image of the reverse proxy before the service")
    monitoring_namespace: str = Field(default="monitoring", description="namespace from which Prometheus scrapes")
    ray_version: str = Field(
        default="2.60.0", description="Ray in that image; must be the one that jobs are submitted with"
    )
    storage: str = Field(default="s3://ssm-platform/runs", description="where checkpoints, models and reports go")
    model: str = Field(default="production", description="what the service serves: an alias or version of the registry")
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
            "gpu": NodeGroup(instance="g6.4xlarge", cpus=16, gpus=1, memory_gib=64, minimum=1, maximum=2),
            "gpu-spot": NodeGroup(instance="g6.4xlarge", cpus=16, gpus=1, memory_gib=64, maximum=8, spot=True),
            "decode-spot": NodeGroup(instance="c6i.4xlarge", cpus=16, memory_gib=32, maximum=8, spot=True),
        },
        description="worker groups of training, by name",
    )
    serving: dict[str, NodeGroup] = Field(
        default={
            "serve": NodeGroup(instance="m6i.2xlarge", cpus=8, memory_gib=32, minimum=2, maximum=6),
            "serve-gpu": NodeGroup(instance="g6.xlarge", cpus=4, gpus=1, memory_gib=16, minimum=2, maximum=4),
        },
        description="worker groups of the service, by name: on demand, two machines at least",
    )
    idle_minutes: int = Field(default=10, ge=1, description="an idle worker is given back after this long")

    @field_validator("storage")
    @classmethod
    def _shared_storage(cls, uri: str) -> str:
        if not uri.startswith("s3://"):
            raise ValueError(f"storage {uri!r}: machines of a cluster share no disk, so it must start with s3://")
        return uri

    @field_validator("serving")
    @classmethod
    def _stays(cls, groups: dict[str, NodeGroup]) -> dict[str, NodeGroup]:
        for name, group in groups.items():
            if group.spot or group.minimum < 2:
                raise ValueError(f"serving.{name}: a service needs on-demand machines, 2 of each kind at least")
        return groups

    @model_validator(mode="after")
    def _driver_runs_torch(self) -> Self:
        needed = next((driver for cuda, driver in DRIVERS if _version(self.cuda) >= _version(cuda)), 0)
        if self.driver < needed:
            raise ValueError(f"driver is {self.driver}: CUDA {self.cuda} needs {needed} or newer")
        return self


DRIVERS = (("13.0", 580), ("12.8", 570), ("12.6", 560), ("12.4", 550), ("12.0", 525), ("11.0", 450))
"""CUDA -> the oldest Linux driver branch that came with it, newest first (NVIDIA's CUDA toolkit release notes)."""


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))
