"""The configuration of `ray up` on AWS, from `ClusterSettings`."""

from __future__ import annotations

from typing import Any

from ssm_platform.cluster.settings import ClusterSettings, NodeGroup

PROJECT_DIR = "/home/ray/ssm-platform"
TOKEN_FILE = "/home/ray/.ray/auth_token"
GCS_PORT = 6379
EXCLUDED = (".git", ".venv", "runs", "data", "docs", "**/__pycache__", ".mypy_cache", ".ruff_cache", ".hypothesis")
"""What never travels to a cluster: environments, outputs and caches."""


def ray_up(settings: ClusterSettings) -> dict[str, Any]:
    """The configuration of `ray up`: a head that runs no work, and workers that come and go."""
    ray = f"cd {PROJECT_DIR} && SSM_STORAGE={settings.storage} RAY_AUTH_MODE=token ray start"
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
            "head": _node(settings, settings.head, resources={"CPU": 0}),
            **{name: _node(settings, group) for name, group in settings.workers.items()},
        },
        "head_node_type": "head",
        # The laptop's token (`ray get-auth-token --generate`) opens the cluster, and nothing else does.
        "file_mounts": {PROJECT_DIR: ".", TOKEN_FILE: "~/.ray/auth_token"},
        "rsync_exclude": list(EXCLUDED),
        "rsync_filter": [".gitignore"],
        "initialization_commands": [driver_check(settings)],
        "setup_commands": [f"cd {PROJECT_DIR} && pip install --quiet -e '.[platform,minilm]'"],
        "head_start_ray_commands": [
            "ray stop",
            f"{ray} --head --port={GCS_PORT} --dashboard-host=127.0.0.1"
            " --autoscaling-config=~/ray_bootstrap_config.yaml",
        ],
        "worker_start_ray_commands": ["ray stop", f"{ray} --address=$RAY_HEAD_IP:{GCS_PORT}"],
    }


def driver_check(settings: ClusterSettings) -> str:
    """A shell command that ends a machine's start where its NVIDIA driver is too old; one without a GPU passes."""
    words = f"NVIDIA driver $driver: torch for CUDA {settings.cuda} needs {settings.driver}; name another machine_image"
    return (
        "if command -v nvidia-smi >/dev/null; then "
        "driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader | head -n 1); "
        f'if [ "${{driver%%.*}}" -lt {settings.driver} ]; then echo "{words}" >&2; false; fi; fi'
    )


def _node(settings: ClusterSettings, group: NodeGroup, resources: dict[str, int] | None = None) -> dict[str, Any]:
    node: dict[str, Any] = {
        "InstanceType": group.instance,
        # Ray gives a role of its own to the head alone: workers read shards and write checkpoints as well.
        "IamInstanceProfile": {"Name": settings.instance_profile},
        "BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": {"VolumeSize": 200, "VolumeType": "gp3"}}],
    }
    if settings.machine_image is not None:
        node["ImageId"] = settings.machine_image
    if group.spot:
        node["InstanceMarketOptions"] = {"MarketType": "spot"}
    owned = {"CPU": group.cpus} | ({"GPU": group.gpus} if group.gpus else {})
    limits = {} if resources else {"min_workers": group.minimum, "max_workers": group.maximum}
    return {"node_config": node, "resources": resources or owned, **limits}
