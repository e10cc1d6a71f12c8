"""The service as an application: `serve run serve.app:build model=FOLDER`, or `python jobs/deploy.py --model FOLDER`.

Importing this module starts nothing. Annotations here are real objects (no postponed evaluation): Serve reads the
builder's to turn its arguments into `Settings`, which forbids unknown keys.
"""

import os

from ray.serve import Application

from serve.settings import Settings


def build(settings: Settings) -> Application:
    """The application that `settings` describes. ValueError where model or face detector cannot be served."""
    from serve.deployments import application
    from ssm_platform.faces import decided, make_detector
    from ssm_platform.models import locate, pinned, registry_uri
    from ssm_platform.read import ModelReader

    registry = registry_uri(settings.registry)  # replicas stand in other folders
    detection = decided(settings.detection)  # the same one in every replica, whatever its machine has
    make_detector(detection)
    settings = settings.model_copy(
        update={"model": pinned(settings.model, registry), "registry": registry, "detection": detection}
    )
    ModelReader(
        locate(settings.model, settings.registry), "cpu"
    )  # a model that does not fit is refused here, not in a replica's log
    return application(settings, _token(settings))


def _token(settings: Settings) -> str | None:
    if settings.token_variable is None:
        return None
    token = os.environ.get(settings.token_variable, "").strip()  # a file's last newline is no part of it
    if len(token) < 16:
        raise ValueError(
            f"the environment variable {settings.token_variable} must hold a token of 16 characters or more"
        )
    return token
