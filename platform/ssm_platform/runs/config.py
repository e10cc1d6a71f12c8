"""A run as one value: what is read, what is trained, on how many workers, and where the result goes.

`RunConfig` is frozen, refuses unknown keys and checks every range; recipes (`recipes`) build one, the command
line (`base.overrides`) replaces fields. It opens no file and starts nothing. `fingerprint` covers exactly what
decides the numbers of a training run, so a stopped run may go on with other workers or another tracker, but never
with other mathematics.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ssm.interface import CLIP_MEAN, CLIP_STD, Preprocessing
from ssm.model import ModelConfig
from ssm.training import AU_AUGMENTATION, Augmentation, TrainConfig
from ssm_platform.base import default_place
from ssm_platform.media import DEFAULT_DECODER, Decoder
from ssm_platform.records import Task, corpus_of

Protocol = Literal["clean", "published", "lodo"]
"""What a model's choices rest on; a report always names it (method, section 9)."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CorpusConfig(_Frozen):
    """One corpus of a run: where it lies, how often its clips are drawn, and which parts it trains on."""

    name: str = Field(min_length=1, description="name of the corpus; also its reader unless `reader` says otherwise")
    reader: str | None = Field(
        default=None, description="reader of the owner's files (see jobs/doctor.py); null: `name`"
    )
    root: str | None = Field(
        default=None, description="folder of the owner's files; data in object storage is read by its `manifest`"
    )
    manifest: str | None = Field(
        default=None,
        description="a ready Parquet manifest instead of `root`, a file or an s3:// object (jobs/ingest.py writes one)",
    )
    crops: Literal["auto", "always"] = Field(
        default="auto",
        description="always: its frames are face crops already; auto: as ingest recorded, or as its owner ships it",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="options of the reader, for example the camera")
    synthetic: str | None = Field(
        default=None, description="size of the synthetic corpus written to `root` where nothing lies there; null: never"
    )
    weight: float | None = Field(
        default=None, gt=0, description="share of its task's rows, relative to the others; null: its number of clips"
    )
    augmentation: Augmentation = Field(default=AU_AUGMENTATION, description="random warp of training clips")
    test_parts: tuple[str, ...] = Field(
        default=(),
        description="owner's parts that are the test set; empty: a hash-drawn share of the subjects or clips",
    )
    validation_parts: tuple[str, ...] = Field(
        default=(), description="owner's parts held out for validation; empty: drawn by hash from the training part"
    )
    holdout: float = Field(default=0.2, gt=0, lt=0.9, description="share of subjects or clips that a hash draws")
    role: Literal["train", "test"] = Field(default="train", description="test: never trained on (leave one corpus out)")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.root is None) == (self.manifest is None):
            raise ValueError(f"corpus {self.name!r}: set exactly one of root and manifest")
        if self.synthetic is not None and self.root is None:
            raise ValueError(f"corpus {self.name!r}: synthetic needs a root to write to")
        if shared := set(self.test_parts) & set(self.validation_parts):
            raise ValueError(f"corpus {self.name!r}: parts {sorted(shared)} are in test_parts and in validation_parts")
        return self


class DataConfig(_Frozen):
    """What is read and how it becomes batches."""

    corpora: tuple[CorpusConfig, ...] = Field(min_length=1, description="the corpora, of either task, in any number")
    fe_batch: int = Field(default=12, ge=0, description="expression clips in a global batch")
    au_batch: int = Field(default=8, ge=0, description="AU clips in a global batch")
    va_batch: int = Field(default=0, ge=0, description="clips of valence and arousal in a global batch")
    decoder: Decoder = Field(default=DEFAULT_DECODER, description="video decoder")
    warp: Literal["stream", "worker"] = Field(
        default="stream",
        description="where stored frames become warped pixels: in the decode processes, or in the training worker (on "
        "its GPU where it has one), which ships a fifth of the bytes; shards only",
    )
    decode_workers: int = Field(default=1, ge=1, le=1024, description="decode processes of the training stream")
    decode_cpus: float = Field(default=0.5, gt=0, le=64, description="CPUs that each decode process declares to Ray")
    resize: int | None = Field(
        default=None,
        ge=8,
        le=4096,
        description="shorter side before the centre is cut, in evaluation; null: image size",
    )
    mean: tuple[float, float, float] = Field(default=CLIP_MEAN, description="RGB mean taken off, in units of [0, 1]")
    std: tuple[float, float, float] = Field(default=CLIP_STD, description="RGB deviation divided by")
    grey: bool = Field(
        default=False,
        description="the model sees luminance alone: for corpora of grey pictures, so that colour is no news",
    )
    standardise: bool = Field(
        default=False,
        description="each frame is brought to mean 0 and deviation 1 first; mean and std are in its units",
    )
    prefetch_batches: int = Field(default=2, ge=0, le=64, description="batches each worker holds ready")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [corpus.name for corpus in self.corpora]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"corpus {name!r} is listed twice; names are unique in a run")
        if self.global_batch == 0:
            raise ValueError("fe_batch, au_batch and va_batch are all 0: at least one task is trained")
        return self

    @property
    def global_batch(self) -> int:
        """Clips in one step over all workers."""
        return sum(self.batches.values())

    @property
    def batches(self) -> dict[Task, int]:
        """Clips of each task in one step over all workers."""
        return {"fe": self.fe_batch, "au": self.au_batch, "va": self.va_batch}


class ScaleConfig(_Frozen):
    """Worker processes and what each declares to Ray."""

    workers: int | tuple[int, int] = Field(
        default=1, description="worker processes, or [min, max] to grow and shrink with the cluster"
    )
    cpus_per_worker: float = Field(default=1.0, gt=0, le=256, description="CPUs each worker declares to Ray")
    threads_per_worker: int = Field(default=1, ge=1, le=256, description="torch threads of a worker; part of exactness")
    gpu: bool = Field(default=False, description="one GPU per worker (nccl) instead of the CPU (gloo)")
    store_gib: float | None = Field(
        default=None,
        gt=0,
        le=4096,
        description="memory for clips in flight of a local cluster of our own, in GiB; null: what the run needs",
    )
    max_failures: int = Field(default=3, ge=-1, description="worker failures a run survives; -1: any number")
    resize_interval: float = Field(
        default=60.0, ge=1, description="seconds between looks for room, for elastic workers"
    )

    @model_validator(mode="after")
    def _range(self) -> Self:
        low, high = self.bounds
        if not 1 <= low <= high:
            raise ValueError(f"workers is {self.workers!r}: must be at least 1, and [min, max] in that order")
        return self

    @property
    def bounds(self) -> tuple[int, int]:
        """Least and greatest number of workers."""
        return (self.workers, self.workers) if isinstance(self.workers, int) else self.workers


class CheckpointConfig(_Frozen):
    """When the complete state is written, and how long storage may be away."""

    every: int = Field(default=200, ge=1, description="steps between checkpoints; the last step always writes one")
    keep: int = Field(default=2, ge=1, le=1000, description="newest checkpoints kept, besides the best one")
    deadline: float = Field(default=120.0, gt=0, description="seconds a write is retried before the run stops")


class TrackingConfig(_Frozen):
    """Where losses and metrics are logged (rank 0 only)."""

    tensorboard: bool = Field(default=True, description="write TensorBoard events below the run's folder")
    mlflow: str | None = Field(default=None, description="MLflow tracking URI; null: MLflow is not used")
    every: int = Field(default=10, ge=1, description="steps between logged losses")


class RunConfig(_Frozen):
    """One training run from corpora to saved model."""

    name: str = Field(default="quickstart", pattern=r"^[\w.\-]+$", description="name of the run and of its folder")
    seed: int = Field(default=1, ge=0, lt=2**31, description="seed of order, augmentation, weights and noise")
    storage: str = Field(
        default_factory=default_place,
        min_length=1,
        description="folder or s3:// prefix that holds runs; unset: SSM_STORAGE, else runs",
    )
    protocol: Protocol = Field(default="clean", description="how data is split and chosen by: clean, published or lodo")
    init_from: str | None = Field(
        default=None,
        description="folder of a saved model whose weights the run starts from, where names, shapes and labels agree",
    )
    epochs: int = Field(default=30, ge=1, description="passes over the longer task; an epoch is as long as that side")
    steps: int | None = Field(default=None, ge=1, description="optimiser steps in all, instead of `epochs`")
    validate_every: int = Field(
        default=500, ge=1, description="steps between validations; the last step always has one"
    )
    validation_clips: int | None = Field(
        default=None, ge=1, description="validation clips per corpus while training (spread evenly); null: all"
    )
    data: DataConfig
    model: ModelConfig = Field(default_factory=ModelConfig, description="the network")
    train: TrainConfig = Field(default_factory=TrainConfig, description="losses, optimiser and schedule")
    scale: ScaleConfig = Field(default_factory=ScaleConfig, description="workers")
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig, description="checkpoints")
    tracking: TrackingConfig = Field(default_factory=TrackingConfig, description="logging")

    @property
    def preprocessing(self) -> Preprocessing:
        """Evaluation geometry and normalisation; saved with the model."""
        data = self.data
        return Preprocessing(
            image_size=self.model.backbone.image_size,
            resize=data.resize,
            mean=data.mean,
            std=data.std,
            grey=data.grey,
            standardise=data.standardise,
        )

    def anchored(self, folder: Path) -> Self:
        """The same with every place it names made absolute, relative to `folder`.

        Ray's workers stand elsewhere, and so may whoever evaluates or verifies the run later.
        """
        text = self.model.text
        text = text.model_copy(update={"style_file": _anchored(text.style_file, folder)})
        corpora = tuple(
            corpus.model_copy(
                update={"root": _anchored(corpus.root, folder), "manifest": _anchored(corpus.manifest, folder)}
            )
            for corpus in self.data.corpora
        )
        changes: dict[str, Any] = {
            "storage": anchored(self.storage, folder),
            "init_from": _anchored(self.init_from, folder),
            "data": self.data.model_copy(update={"corpora": corpora}),
            "model": self.model.model_copy(update={"text": text}),
            "tracking": self.tracking.model_copy(update={"mlflow": _anchored_uri(self.tracking.mlflow, folder)}),
        }
        return self.model_copy(update=changes)

    def corpus(self, name: str) -> CorpusConfig:
        """The corpus called `name`, or whose part of one task is called so; KeyError where there is none."""
        return {corpus.name: corpus for corpus in self.data.corpora}[corpus_of(name)]

    def fingerprint(self) -> str:
        """Digest of what decides the numbers; see `mathematics`."""
        return hashlib.sha256(json.dumps(self.mathematics(), sort_keys=True).encode()).hexdigest()

    def mathematics(self) -> dict[str, Any]:
        """The fields that decide the numbers, as dotted leaves: two runs that share them and their data train alike."""
        every = leaves(self.model_dump(mode="json"))
        free = _FREE if self.train.sample_weighting == "mal" else (*_FREE, "train.mal.")
        deciding = ((path, value) for path, value in every if not path.startswith(free) and not path.endswith(_PLACES))
        return {path: value for path, value in deciding if not _as_before(path, value)}


_FREE = (
    "name",
    "storage",
    "init_from",
    "validate_every",
    "validation_clips",
    "data.decode",
    "data.prefetch_batches",
    "scale.",
    "checkpoint.",
    "tracking.",
)
"""Fields that a resumed run may change. The decoders agree on frames (tested), so the decoder is among them. What
`init_from` holds is in the run's own fingerprint, wherever it lies."""

_PLACES = (".root", ".manifest", ".synthetic", ".crops")
"""Where data lies may change as well, and what it is called: what it holds is in the fingerprints of the manifests."""


_LATER: dict[str, Any] = {
    "data.warp": "stream",
    "backbone.channels_last": False,
    "train.compile_mode": "default",
    "train.au_partners": "au",
    "train.expression_teacher": 0.0,
    "data.grey": False,
    "data.standardise": False,
    "train.data_init": False,
    "train.optim.frozen": 0.0,
    "train.loss.au_from": 0.0,
    "train.loss.au_rise": 0.0,
    "train.loss.fe_smoothing": 0.0,
    "train.loss.map_evidence": 0.0,
    "train.loss.prevalence": [],
    "train.loss.evidential.form": "expected",
    "train.loss.evidential.regulariser": 0.1,
    "train.loss.evidential.ramp": 1 / 3,
    "train.loss.latent.posterior": 0.5,
    "train.loss.latent.divergence": 0.1,
    "train.loss.latent.ramp": 1 / 3,
    "model.au_reader.kind": "linear",
    "model.au_reader.focus.positive": 0.0,
    "model.au_reader.focus.negative": 1.0,
    "model.au_reader.focus.shift": 0.0,
    "model.au_reader.graph.neighbours": 4,
    "model.au_reader.graph.metric": "dot",
    "model.au_reader.graph.heads": 8,
    "model.au_reader.latent.hidden": 128,
    "model.au_reader.latent.width": 32,
    "au_reader.latent.windows.0": 1,
    "au_reader.latent.windows.1": 5,
    "au_reader.latent.windows.2": 15,
    "au_reader.latent.samples": 0,
    "train.loss.affect": 1.0,
    "data.va_batch": 0,
    "model.affect.head": "features",
    "model.backbone.project": True,
    "model.backbone.unit_features": False,
    "model.backbone.mirrored": False,
    "model.reading": "clips",
    "model.frame_hidden": 128,
    "photograph.resolution": 1.0,
    "photograph.blur": 0.0,
    "photograph.colour": 0.0,
    "photograph.grey": 0.0,
    "photograph.contrast": 0.0,
    "photograph.jpeg": 100,
}
"""Ends of fields that came after the first runs, and what those runs did. A field that says so is left out of the
fingerprint, so that they go on; one added here must change nothing at that value."""


def _as_before(path: str, value: Any) -> bool:
    return any(path.endswith(end) and value == before for end, before in _LATER.items())


def anchored(place: str, folder: Path) -> str:
    """`place` as seen from `folder`, absolute; what lies in object storage is named as it is."""
    return place if "://" in place else str(folder / place)


def _anchored(place: str | None, folder: Path) -> str | None:
    return None if place is None else anchored(place, folder)


_FILE_SCHEMES = ("sqlite:///", "file:")
_NO_FILES = ("databricks", "databricks-uc", "uc")
"""MLflow's names of servers that look like folders."""


def _anchored_uri(uri: str | None, folder: Path) -> str | None:
    """An MLflow tracking URI whose database or folder is absolute; addresses of servers stay as they are."""
    if uri is None or uri in _NO_FILES:
        return uri
    scheme = next((scheme for scheme in _FILE_SCHEMES if uri.startswith(scheme)), None)
    if scheme is None:
        return anchored(uri, folder)
    path = uri.removeprefix(scheme)
    return uri if path.startswith("/") else f"{scheme}{anchored(path, folder)}"


def leaves(tree: Any, prefix: str = "") -> list[tuple[str, Any]]:
    """Every leaf of nested dicts and lists with its dotted path, in order."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else None
    if items is None or not tree:
        return [(prefix.removesuffix("."), tree)]
    return [leaf for key, value in items for leaf in leaves(value, f"{prefix}{key}.")]
