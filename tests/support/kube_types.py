"""Manifests against the published types: core kinds by the models of Kubernetes' own Python client.

Unknown keys are refused. KubeRay's and Prometheus's kinds have no package in a registry we reach, so their fields stand
here by hand: from KubeRay's Go types (ray-project/kuberay, `ray-operator/apis/ray/v1/`; `authOptions` is new in 1.5)
and prometheus-operator's API reference (PodMonitor). Only the fields we write are listed: a key that is not here fails,
whether the CRD has it or not. Not checked: rules that an API server adds (CEL, defaulting).
"""

from __future__ import annotations

import re
from typing import Any

import kubernetes.client as client

Fields = dict[str, Any]  # a key -> a type of the client, a python type, nested fields, or a list of one of these

_CLUSTER: Fields = {
    "rayVersion": str,
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": {
        "idleTimeoutSeconds": int,
        "securityContext": "V1SecurityContext",
        "volumeMounts": "list[V1VolumeMount]",
    },
    "authOptions": {"mode": str},
    "headGroupSpec": {"rayStartParams": "dict(str, str)", "template": "V1PodTemplateSpec"},
    "workerGroupSpecs": [
        {
            "groupName": str,
            "replicas": int,
            "minReplicas": int,
            "maxReplicas": int,
            "rayStartParams": "dict(str, str)",
            "template": "V1PodTemplateSpec",
        }
    ],
}
CUSTOM: dict[tuple[str, str], Fields] = {
    ("ray.io/v1", "RayJob"): {
        "entrypoint": str,
        "shutdownAfterJobFinishes": bool,
        "ttlSecondsAfterFinished": int,
        "backoffLimit": int,
        "rayClusterSpec": _CLUSTER,
    },
    ("ray.io/v1", "RayService"): {"serveConfigV2": str, "rayClusterConfig": _CLUSTER},
    ("monitoring.coreos.com/v1", "PodMonitor"): {
        "selector": "V1LabelSelector",
        "podMetricsEndpoints": [{"port": str, "interval": str}],
    },
}
_GROUPS = {"v1": "V1", "apps/v1": "V1", "policy/v1": "V1", "networking.k8s.io/v1": "V1"}
_PLAIN: dict[str, type | tuple[type, ...]] = {"str": (str, int), "int": int, "bool": bool, "float": (int, float)}


def problems(manifest: dict[str, Any]) -> list[str]:
    """What is wrong with a manifest, each with the path of the key."""
    api, kind = manifest["apiVersion"], manifest["kind"]
    if (api, kind) in CUSTOM:
        spec = {"apiVersion": str, "kind": str, "metadata": "V1ObjectMeta", "spec": CUSTOM[api, kind]}
        return _check(manifest, spec, kind)
    if api not in _GROUPS or not hasattr(client, _GROUPS[api] + kind):
        return [f"{api} {kind}: no such kind is known"]
    return _check(manifest, _GROUPS[api] + kind, kind)


def _check(value: Any, wanted: Any, at: str) -> list[str]:
    if isinstance(wanted, dict):
        return _check_fields(value, wanted, at)
    if isinstance(wanted, list):
        items = value if isinstance(value, list) else []
        return [p for number, item in enumerate(items) for p in _check(item, wanted[0], f"{at}[{number}]")] or (
            [] if isinstance(value, list) else [f"{at}: a list is wanted"]
        )
    if isinstance(wanted, type):
        return [] if type(value) is wanted else [f"{at}: {value!r} is no {wanted.__name__}"]
    if found := re.fullmatch(r"list\[(.+)\]", wanted):
        return _check(value, [found[1]], at)
    if found := re.fullmatch(r"dict[(\[]str, (.+)[)\]]", wanted):
        return [p for key, item in value.items() for p in _check(item, found[1], f"{at}.{key}")]
    if wanted == "object":
        return []
    if wanted in _PLAIN:
        good = isinstance(value, _PLAIN[wanted]) and (wanted == "bool" or not isinstance(value, bool))
        return [] if good else [f"{at}: {value!r} is no {wanted}"]
    return _check_model(value, getattr(client, wanted), at)


def _check_fields(value: Any, fields: Fields, at: str) -> list[str]:
    found = [f"{at}.{key}: unknown" for key in value if key not in fields]
    found += [f"{at}.{key}: absent" for key in fields if key not in value]
    return found + [p for key in fields if key in value for p in _check(value[key], fields[key], f"{at}.{key}")]


def _check_model(value: Any, model: Any, at: str) -> list[str]:
    if not isinstance(value, dict):
        return [f"{at}: {value!r} is no {model.__name__}"]
    names = {key: name for name, key in model.attribute_map.items()}
    found = [f"{at}.{key}: unknown in {model.__name__}" for key in value if key not in names]
    known = {names[key]: item for key, item in value.items() if key in names}
    try:
        model(**known)
    except ValueError as error:  # what must not be absent
        found.append(f"{at}: {error}")
    for name, item in known.items():
        found += _check(item, model.openapi_types[name], f"{at}.{model.attribute_map[name]}")
    return found
