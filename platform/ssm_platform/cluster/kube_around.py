"""What stands around the service on Kubernetes: proxy, network policies, disruption budgets, a monitor."""

from __future__ import annotations

import re

from ssm_platform.cluster.kube_pods import HEAD_PORTS, LABEL, Manifest, confined, unprivileged
from ssm_platform.cluster.settings import ClusterSettings

PROXY_PORT = 8080
_NGINX_USER = 101


def proxy(settings: ClusterSettings, name: str, configuration: str) -> list[Manifest]:
    """nginx before the service: two of it, a configuration, an address."""
    called = f"{name}-proxy"
    places = {
        "127.0.0.1:8000": f"{name}-serve-svc:8000",
        "listen 127.0.0.1:8080": f"listen {PROXY_PORT}",
        "limit_conn client 16": "limit_conn client 64",  # behind a balancer many clients have one address
        "limit_conn client 64": "limit_conn client 128",
    }
    text = re.sub("|".join(map(re.escape, places)), lambda found: places[found[0]], configuration)
    selector = {LABEL: called}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": called}, "data": {"nginx.conf": text}},
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": called},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": selector},
                "template": {"metadata": {"labels": selector}, "spec": _proxy_pod(settings, called)},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": called},
            "spec": {"selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        },
    ]


def _proxy_pod(settings: ClusterSettings, configuration: str) -> Manifest:
    amounts = {"cpu": 1, "memory": "256Mi", "ephemeral-storage": "36Gi"}
    container = {
        "name": "nginx",
        "image": settings.proxy_image,
        "command": ["nginx", "-p", "/var/proxy/", "-c", "/etc/ssm/nginx.conf", "-e", "stderr"],
        "ports": [{"name": "http", "containerPort": PROXY_PORT}],
        "resources": {"limits": amounts, "requests": amounts},
        "securityContext": confined(),
        "livenessProbe": {"tcpSocket": {"port": "http"}, "periodSeconds": 10},
        "readinessProbe": {
            "httpGet": {"path": "/v2/health/ready", "port": "http"}, "periodSeconds": 5, "timeoutSeconds": 6,
        },
        "volumeMounts": [{"name": "bodies", "mountPath": "/var/proxy"}, {"name": "conf", "mountPath": "/etc/ssm"}],
    }  # fmt: skip
    return {
        "securityContext": unprivileged(_NGINX_USER),
        "automountServiceAccountToken": False,
        "containers": [container],
        "volumes": [
            {"name": "bodies", "emptyDir": {"sizeLimit": "35Gi"}},
            {"name": "conf", "configMap": {"name": configuration}},
        ],
    }


def disruption(name: str) -> Manifest:
    """Nodes are drained one pod at a time."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": name},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {LABEL: name}}},
    }


def network(settings: ClusterSettings, name: str) -> Manifest:
    """Pods of the cluster reach each other; else only proxy, operator and Prometheus reach them, on a port each."""
    own, proxy = {"matchLabels": {LABEL: name}}, {"matchLabels": {LABEL: f"{name}-proxy"}}
    operator = {"matchLabels": {LABEL: "kuberay-operator"}}
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


def proxy_network(settings: ClusterSettings, name: str) -> Manifest:
    """Anyone reaches the proxy; it reaches the service and names."""
    entering = [{"ports": [{"protocol": "TCP", "port": PROXY_PORT}]}]
    leaving: list[Manifest] = [
        {"to": [{"podSelector": {"matchLabels": {LABEL: name}}}], "ports": _ports("serve")},
        {"ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]},
    ]
    return _policy(f"{name}-proxy", entering, leaving)


def _policy(name: str, entering: list[Manifest], leaving: list[Manifest]) -> Manifest:
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": name},
        "spec": {
            "podSelector": {"matchLabels": {LABEL: name}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": entering,
            "egress": leaving,
        },
    }


def _ports(*names: str) -> list[Manifest]:
    return [{"protocol": "TCP", "port": HEAD_PORTS[name]} for name in names]


def pod_monitor(name: str) -> Manifest:
    """What the Prometheus operator scrapes: every pod's own metrics."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {LABEL: name}},
            "podMetricsEndpoints": [{"port": "metrics", "interval": "15s"}],
        },
    }
