"""What a deployment of the service is: typed, frozen, unknown keys forbidden.

Serve accepts misspelt keys in silence, so nothing reaches it but what `Scaling.options` generates from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ssm_platform.faces import FaceSettings
from ssm_platform.media import Decoder
from ssm_platform.models import Expressions
from ssm_platform.read import Faces

MIB = 2**20
OVERHEAD = 64 * 1024
"""What the boundaries and part headers of a form may add to its files."""


class Limits(BaseModel):
    """What one request may cost. Every limit is checked before the work it bounds is done."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    upload_bytes: int = Field(default=512 * MIB, ge=1, description="largest upload; enforced while it is read")
    spool_bytes: int = Field(
        default=4096 * MIB, ge=1, description="disk for uploads of one ingress replica; reserved before one is read"
    )
    tensor_bytes: int = Field(default=128 * MIB, ge=1, description="largest body of a /v2 inference request")
    tensor_json_bytes: int = Field(
        default=4 * MIB, ge=1, description="largest JSON part of it: parsing text costs 50 times what binary does"
    )
    tensor_memory: int = Field(
        default=512 * MIB, ge=1, description="memory for bodies of /v2 requests in one ingress replica"
    )
    clips: int = Field(default=64, ge=1, description="most clips in one /v2 request")
    images: int = Field(default=64, ge=1, le=1024, description="most pictures in one request")
    video_s: float = Field(default=3600, gt=0, description="longest video, in seconds, as its header says and as read")
    frames: int = Field(default=216_000, ge=1, description="most frames of a video: an hour at 60 a second")
    frame_pixels: int = Field(
        default=16 * 2**20, ge=1, description="most pixels of a frame or picture, by its header and as it is decoded"
    )
    decode_s: float = Field(
        default=900, ge=1, description="CPU seconds of decoding and face detection for one upload; then it is killed"
    )
    decode_mib: int = Field(
        default=1024, ge=64, description="memory of decoding and face detection for one upload, in MiB"
    )
    faces: int = Field(default=8, ge=1, le=64, description="most faces followed at once; the largest are kept")
    json_rows: int = Field(
        default=20_000, ge=1, description="most rows answered as one JSON document; more stream or are CSV"
    )
    request_s: float = Field(default=1800, gt=0, description="time from the first byte to the last row of an answer")
    patience_s: float = Field(
        default=5,
        gt=0,
        description="longest wait for the model to say what it is (readiness, metadata), and of tensor requests for a "
        "place in its queue; then 503. Uploads wait up to request_s",
    )
    idle_s: float = Field(default=20, gt=0, description="longest pause of a client that is sending")
    upload_rate: float = Field(
        default=16 * 1024, ge=0, description="bytes a second that a client must send on average, after idle_s"
    )

    live: int = Field(default=4, ge=0, description="most cameras at once before one ingress replica; 0: none")
    live_s: float = Field(default=3600, ge=1, description="longest session of a camera; also its CPU seconds")
    live_frame_bytes: int = Field(default=2 * MIB, ge=1, description="largest encoded frame of a camera")
    live_rate: float = Field(
        default=120,
        gt=0,
        description="frames a second that a camera may send; answered are those there is time for",
    )

    @model_validator(mode="after")
    def _one_fits(self) -> Self:
        if self.spool_bytes < self.upload_bytes + OVERHEAD:
            raise ValueError(f"spool_bytes is {self.spool_bytes}: must hold one upload, {self.upload_bytes + OVERHEAD}")
        if self.tensor_memory < self.tensor_bytes:
            raise ValueError(f"tensor_memory is {self.tensor_memory}: must hold one request, {self.tensor_bytes}")
        return self


class Scaling(BaseModel):
    """How many replicas a deployment has, what each holds, and how much may wait before it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    replicas: int = Field(default=1, ge=1, description="replicas kept at all times")
    replicas_max: int = Field(default=1, ge=1, description="replicas at most")
    cpus: float = Field(default=1, ge=0, description="CPUs Ray reserves for a replica")
    gpus: float = Field(default=0, ge=0, description="GPUs, or a share of one, for a replica")
    ongoing: int = Field(default=8, ge=1, description="requests a replica works on at once")
    queued: int = Field(default=32, ge=0, description="requests that may wait at each caller; more are refused")
    target: float = Field(default=4, gt=0, description="ongoing requests per replica that autoscaling aims at")
    upscale_delay_s: float = Field(default=5, ge=0, description="overload must last this long to add a replica")
    downscale_delay_s: float = Field(default=120, ge=0, description="idleness before a replica is taken away")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.replicas_max < self.replicas:
            raise ValueError(f"replicas_max is {self.replicas_max}: must be at least replicas, {self.replicas}")
        if self.target > self.ongoing:
            raise ValueError(f"target is {self.target:g}: must be at most ongoing, {self.ongoing}, or it never scales")
        return self

    def options(self, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The keyword arguments of `ray.serve.deployment` that these settings stand for; `environment` is for its
        replicas beside the cluster's."""
        process = {"runtime_env": {"env_vars": dict(environment)}} if environment else {}
        return {
            "max_ongoing_requests": self.ongoing,
            "max_queued_requests": self.queued,
            "max_surge_percent": 100,  # an update starts the new replicas first; the default stops old ones first
            "ray_actor_options": {"num_cpus": self.cpus, "num_gpus": self.gpus, **process},
            "autoscaling_config": {
                "min_replicas": self.replicas,
                "initial_replicas": self.replicas,
                "max_replicas": self.replicas_max,
                "target_ongoing_requests": self.target,
                "upscale_delay_s": self.upscale_delay_s,
                "downscale_delay_s": self.downscale_delay_s,
            },
        }


class Settings(BaseModel):
    """Everything `serve.app:build` needs to know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(min_length=1, description="folder of a saved model, or an alias of the registry")
    registry: str | None = Field(default=None, description="root of the registry that aliases are looked up in")
    name: str = Field(default="ssm", pattern=r"^[a-z][a-z0-9_-]{0,62}$", description="name under /v2/models")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="where the model runs")
    threads: int | None = Field(default=None, ge=1, description="torch threads of a replica; None: its whole CPUs")
    batch: int = Field(default=8, ge=1, le=1024, description="most clips in one forward pass")
    in_flight: int = Field(default=8, ge=1, le=256, description="clips of one video sent to the model ahead of answers")
    faces: Faces = Field(default="all", description="faces answered when a request does not say")
    expressions: Expressions = Field(
        default="on", description="off: action units only, whatever a request asks; no answer names an expression"
    )
    decoder: Decoder = Field(default="av", description="video decoder")
    detection: FaceSettings = Field(default=FaceSettings(), description="how faces are found and followed")
    token_variable: str | None = Field(
        default=None, description="environment variable holding the bearer token clients must send; None: no token"
    )
    hosts: tuple[str, ...] = Field(
        default=(), description="names of this service that clients use; asked for only where no token is set"
    )
    origins: tuple[str, ...] = Field(
        default=(), description="web pages elsewhere that may ask this service (CORS), as https://name"
    )
    grpc: str | None = Field(
        default=None, pattern=r"^\S+:\d+$", description="address of the protocol over gRPC, as host:port; None: no gRPC"
    )
    traces: str | None = Field(default=None, description="OTLP/HTTP collector of OpenTelemetry traces; None: none")
    scratch: str | None = Field(default=None, description="folder of temporary uploads; None: the system's")
    limits: Limits = Limits()
    ingress: Scaling = Scaling(cpus=0.5, ongoing=256, target=32, queued=256, replicas_max=2)
    video: Scaling = Scaling(cpus=1, ongoing=2, target=1.5, queued=16, replicas_max=4)
    inference: Scaling = Scaling(cpus=1, ongoing=32, target=16, queued=256, replicas_max=4)

    @model_validator(mode="after")
    def _batches_can_fill(self) -> Self:
        if self.batch > self.inference.ongoing:
            raise ValueError(
                f"batch is {self.batch}: must be at most inference.ongoing, {self.inference.ongoing}, or it never fills"
            )
        return self
