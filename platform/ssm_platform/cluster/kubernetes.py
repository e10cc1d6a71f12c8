"""Kubernetes manifests for the KubeRay operator, from `ClusterSettings`: the training job and the service."""

from __future__ import annotations

import shlex

import yaml

from ssm_platform.cluster.allocator import GIVES_BACK
from ssm_platform.cluster.aws import PROJECT_DIR
from ssm_platform.cluster.kube_around import disruption, network, pod_monitor, proxy_network
from ssm_platform.cluster.kube_around import proxy as proxy_of
from ssm_platform.cluster.kube_pods import HEAD_PORTS, SCRATCH, WORKER_PORTS, Manifest, confined, mounts, pod
from ssm_platform.cluster.settings import ClusterSettings, NodeGroup

TOKEN_VARIABLE = "SSM_TOKEN"


def ray_job(settings: ClusterSettings) -> list[Manifest]:
    """The training job on a cluster of its own, which ends with it, and the account it runs under."""
    name = f"{settings.name}-train"
    entrypoint = ["python", f"{PROJECT_DIR}/jobs/train.py", f"--storage={settings.storage}", *settings.train]
    job = {
        "apiVersion": "ray.io/v1",
        "kind": "RayJob",
        "metadata": {"name": name},
        "spec": {
            "entrypoint": shlex.join(entrypoint),
            "shutdownAfterJobFinishes": True,
            "ttlSecondsAfterFinished": 3600,
            "backoffLimit": 3,
            "rayClusterSpec": _cluster(settings, name, settings.workers, _environment(settings)),
        },
    }
    return [_account(settings), job]


def ray_service(settings: ClusterSettings, proxy: str) -> list[Manifest]:
    """The HTTP application, replaced without a gap when the manifest changes, and all that stands around it.

    `proxy`: the configuration of the reverse proxy, whose upstream and port are put in their places.
    """
    name = f"{settings.name}-serve"
    token = {"secretKeyRef": {"name": settings.token_secret, "key": "token"}}
    memory = [{"name": name, "value": value} for name, value in GIVES_BACK.items()]
    environment = [*_environment(settings), *memory, {"name": TOKEN_VARIABLE, "valueFrom": token}]
    service = {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": name},
        "spec": {
            "serveConfigV2": yaml.safe_dump(_application(settings), sort_keys=False),
            "rayClusterConfig": _cluster(settings, name, settings.serving, environment),
        },
    }
    return [
        _account(settings),
        service,
        *proxy_of(settings, name, proxy),
        disruption(name),
        disruption(f"{name}-proxy"),
        network(settings, name),
        proxy_network(settings, name),
        pod_monitor(name),
    ]


def _application(settings: ClusterSettings) -> Manifest:
    """Serve's configuration: two replicas of everything, models on GPUs where a group has them."""
    gpus = 1 if any(group.gpus for group in settings.serving.values()) else 0
    return {
        "applications": [
            {
                "name": "ssm",
                "import_path": "serve.app:build",
                "route_prefix": "/",
                "args": {
                    "model": settings.model,
                    "registry": f"{settings.storage}/registry",
                    "token_variable": TOKEN_VARIABLE,
                    "scratch": SCRATCH,
                    "device": "cuda" if gpus else "cpu",
                    "ingress": {"cpus": 0.5, "ongoing": 256, "target": 32, "replicas": 2, "replicas_max": 4},
                    "video": {"cpus": 1, "ongoing": 2, "target": 1.5, "replicas": 2, "replicas_max": 16},
                    "inference": {
                        "cpus": 2, "gpus": gpus, "ongoing": 32, "target": 16, "replicas": 2, "replicas_max": 4,
                    },
                },
            }
        ]
    }  # fmt: skip


def _environment(settings: ClusterSettings) -> list[Manifest]:
    return [{"name": "SSM_STORAGE", "value": settings.storage}, {"name": "HOME", "value": f"{SCRATCH}/home"}]


def _account(settings: ClusterSettings) -> Manifest:
    metadata: Manifest = {"name": settings.kube_service_account}
    if settings.bucket_role is not None:
        metadata["annotations"] = {"eks.amazonaws.com/role-arn": settings.bucket_role}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}


def _cluster(
    settings: ClusterSettings, name: str, groups: dict[str, NodeGroup], environment: list[Manifest]
) -> Manifest:
    head = {"num-cpus": "0", "dashboard-host": "0.0.0.0"}
    return {
        "rayVersion": settings.ray_version,
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "idleTimeoutSeconds": 60 * settings.idle_minutes,
            "securityContext": confined(),
            "volumeMounts": mounts(),
        },
        "authOptions": {"mode": "token"},
        "headGroupSpec": {
            "rayStartParams": head,
            "template": pod(settings, name, "ray-head", settings.head, environment, HEAD_PORTS),
        },
        "workerGroupSpecs": [
            {
                "groupName": group,
                "replicas": machine.minimum,
                "minReplicas": machine.minimum,
                "maxReplicas": machine.maximum,
                "rayStartParams": {},
                "template": pod(settings, name, "ray-worker", machine, environment, WORKER_PORTS),
            }
            for group, machine in groups.items()
        ],
    }
