"""Kubernetes manifests for the KubeRay operator, from `ClusterSettings`: training, the service, and what guards it.

Pods ask for what a node has left beside its own share, run as nobody in particular on a read-only root, and reach the
bucket by their service account. The operator adds the probes of Ray's containers, `/dev/shm` and Ray's token.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

import yaml

from ssm_platform.cluster.aws import PROJECT_DIR
from ssm_platform.cluster.settings import ClusterSettings, NodeGroup

TOKEN_VARIABLE = "SSM_TOKEN"
HEAD_PORTS = {"gcs": 6379, "dashboard": 8265, "client": 10001, "serve": 8000, "metrics": 8080}
WORKER_PORTS = {"serve": 8000, "metrics": 8080}
PROXY_PORT = 8080
SCRATCH = "/scratch"
_LABEL = "app.kubernetes.io/name"
_RAY_USER, _NGINX_USER = 1000, 101
Manifest = dict[str, Any]


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
    environment = [*_environment(settings), {"name": TOKEN_VARIABLE, "valueFrom": token}]
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
        *_proxy(settings, name, proxy),
        _disruption(name),
        _disruption(f"{name}-proxy"),
        _network(settings, name),
        _proxy_network(settings, name),
        _pod_monitor(name),
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
                    "ingress": {"cpus": 0.5, "ongoing": 64, "target": 32, "replicas": 2, "replicas_max": 4},
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


# Ray's pods ---------------------------------------------------------------------------------------------------------


def _cluster(
    settings: ClusterSettings, name: str, groups: dict[str, NodeGroup], environment: list[Manifest]
) -> Manifest:
    head = {"num-cpus": "0", "dashboard-host": "0.0.0.0"}
    return {
        "rayVersion": settings.ray_version,
        "enableInTreeAutoscaling": True,
        "autoscalerOptions": {
            "idleTimeoutSeconds": 60 * settings.idle_minutes,
            "securityContext": _confined(),
            "volumeMounts": _mounts(),
        },
        "authOptions": {"mode": "token"},
        "headGroupSpec": {
            "rayStartParams": head,
            "template": _pod(settings, name, "ray-head", settings.head, environment, HEAD_PORTS),
        },
        "workerGroupSpecs": [
            {
                "groupName": group,
                "replicas": machine.minimum,
                "minReplicas": machine.minimum,
                "maxReplicas": machine.maximum,
                "rayStartParams": {},
                "template": _pod(settings, name, "ray-worker", machine, environment, WORKER_PORTS),
            }
            for group, machine in groups.items()
        ],
    }


def _pod(
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
        "securityContext": _unprivileged(_RAY_USER),
        "containers": [
            {
                "name": role,
                "image": settings.kube_image,
                "env": environment,
                "ports": [{"name": port, "containerPort": number} for port, number in ports.items()],
                "resources": {"limits": amounts, "requests": amounts},
                "securityContext": _confined(),
                "volumeMounts": _mounts(),
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
    return {"metadata": {"labels": {_LABEL: name}}, "spec": spec}


def _mounts() -> list[Manifest]:
    return [{"name": "tmp", "mountPath": "/tmp"}, {"name": "scratch", "mountPath": SCRATCH}]


def _unprivileged(user: int) -> Manifest:
    """Of a pod."""
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _confined() -> Manifest:
    """Of a container."""
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


# Around the service -------------------------------------------------------------------------------------------------


def _proxy(settings: ClusterSettings, name: str, configuration: str) -> list[Manifest]:
    """nginx before the service: two of it, a configuration, an address."""
    proxy = f"{name}-proxy"
    places = {
        "127.0.0.1:8000": f"{name}-serve-svc:8000",
        "listen 127.0.0.1:8080": f"listen {PROXY_PORT}",
        "limit_conn client 16": "limit_conn client 64",  # behind a balancer many clients have one address
        "limit_conn client 64": "limit_conn client 128",
    }
    text = re.sub("|".join(map(re.escape, places)), lambda found: places[found[0]], configuration)
    live = {"tcpSocket": {"port": "http"}, "periodSeconds": 10}
    ready = {"httpGet": {"path": "/v2/health/ready", "port": "http"}, "periodSeconds": 5, "timeoutSeconds": 6}
    amounts = {"cpu": 1, "memory": "256Mi", "ephemeral-storage": "36Gi"}
    container = {
        "name": "nginx",
        "image": settings.proxy_image,
        "command": ["nginx", "-p", "/var/proxy/", "-c", "/etc/ssm/nginx.conf", "-e", "stderr"],
        "ports": [{"name": "http", "containerPort": PROXY_PORT}],
        "resources": {"limits": amounts, "requests": amounts},
        "securityContext": _confined(),
        "livenessProbe": live,
        "readinessProbe": ready,
        "volumeMounts": [{"name": "bodies", "mountPath": "/var/proxy"}, {"name": "conf", "mountPath": "/etc/ssm"}],
    }
    pod = {
        "securityContext": _unprivileged(_NGINX_USER),
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [
            {"name": "bodies", "emptyDir": {"sizeLimit": "35Gi"}},
            {"name": "conf", "configMap": {"name": proxy}},
        ],
    }
    selector = {_LABEL: proxy}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": proxy}, "data": {"nginx.conf": text}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": proxy},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": selector},
                "template": {"metadata": {"labels": selector}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": proxy},
            "spec": {"selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        },
    ]


def _disruption(name: str) -> Manifest:
    """Nodes are drained one pod at a time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {_LABEL: name}}},
    }


def _network(settings: ClusterSettings, name: str) -> Manifest:
    """Pods of the cluster reach each other; else only proxy, operator and Prometheus reach them, on a port each."""
    own, proxy = {"matchLabels": {_LABEL: name}}, {"matchLabels": {_LABEL: f"{name}-proxy"}}
    operator = {"matchLabels": {_LABEL: "kuberay-operator"}}
    monitoring = {"matchLabels": {"kubernetes.io/metadata.name": settings.monitoring_namespace}}
    entering: list[Manifest] = [
        {"from": [{"podSelector": own}]},
        {"from": [{"podSelector": proxy}], "ports": _ports("serve")},
        {"from": [{"namespaceSelector": {}, "podSelector": operator}], "ports": _ports("dashboard", "serve")},
        {"from": [{"namespaceSelector": monitoring}], "ports": _ports("metrics")},
    ]
    leaving: list[Manifest] = [
        {"to": [{"podSelector": own}]},
        {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]},
        {"ports": [{"protocol": "TCP", "port": 443}]},  # the bucket, tokens of the role, Kubernetes for the autoscaler
    ]
    return _policy(name, entering, leaving)


def _proxy_network(settings: ClusterSettings, name: str) -> Manifest:
    """Anyone reaches the proxy; it reaches the service and names."""
    entering = [{"ports": [{"protocol": "TCP", "port": PROXY_PORT}]}]
    leaving: list[Manifest] = [
        {"to": [{"podSelector": {"matchLabels": {_LABEL: name}}}], "ports": _ports("serve")},
        {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]},
    ]
    return _policy(f"{name}-proxy", entering, leaving)


def _policy(name: str, entering: list[Manifest], leaving: list[Manifest]) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "podSelector": {"matchLabels": {_LABEL: name}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": entering,
            "egress": leaving,
        },
    }


def _ports(*names: str) -> list[Manifest]:
    return [{"protocol": "TCP", "port": HEAD_PORTS[name]} for name in names]


def _pod_monitor(name: str) -> Manifest:
    """What the Prometheus operator scrapes: every pod's own metrics."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {_LABEL: name}},
            "podMetricsEndpoints": [{"port": "metrics", "interval": "15s"}],
        },
    }
