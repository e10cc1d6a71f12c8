"""Pods of Ray on Kubernetes: what they ask for, where they run, what they may do.

They ask for what a node has left beside its own share, run as nobody in particular on a read-only root, and reach the
bucket by their service account. KubeRay adds the probes of Ray's containers, `/dev/shm` and Ray's token.
"""

from __future__ import annotations

from typing import Any

from ssm_platform.cluster.settings import ClusterSettings, NodeGroup

HEAD_PORTS = {"gcs": 6379, "dashboard": 8265, "client": 10001, "serve": 8000, "metrics": 8080}
WORKER_PORTS = {"serve": 8000, "metrics": 8080}
SCRATCH = "/scratch"
LABEL = "app.kubernetes.io/name"
RAY_USER = 1000
Manifest = dict[str, Any]


def pod(
    settings: ClusterSettings,
    name: str,
    role: str,
    group: NodeGroup,
    environment: list[Manifest],
    ports: dict[str, int],
) -> Manifest:
    amounts: dict[str, str | int] = {
        "cpu": group.pod_cpus,
        "memory": f"{group.pod_memory_gib}Gi",
        "ephemeral-storage": "60Gi",
    }
    if group.gpus:
        amounts["nvidia.com/gpu"] = group.gpus
    spec: Manifest = {
        "serviceAccountName": settings.kube_service_account,
        "securityContext": unprivileged(RAY_USER),
        "containers": [
            {
                "name": role,
                "image": settings.kube_image,
                "env": environment,
                "ports": [{"name": port, "containerPort": number} for port, number in ports.items()],
                "resources": {"limits": amounts, "requests": amounts},
                "securityContext": confined(),
                "volumeMounts": mounts(),
            }
        ],
        "volumes": [
            {"name": "tmp", "emptyDir": {"sizeLimit": "20Gi"}},
            {"name": "scratch", "emptyDir": {"sizeLimit": "30Gi"}},
        ],
        "nodeSelector": {
            "node.kubernetes.io/instance-type": group.instance,
            "eks.amazonaws.com/capacityType": "SPOT" if group.spot else "ON_DEMAND",
        },
    }
    if group.gpus:
        spec["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    return {"metadata": {"labels": {LABEL: name}}, "spec": spec}


def mounts() -> list[Manifest]:
    return [{"name": "tmp", "mountPath": "/tmp"}, {"name": "scratch", "mountPath": SCRATCH}]


def unprivileged(user: int) -> Manifest:
    """Of a pod."""
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def confined() -> Manifest:
    """Of a container."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
