"""Many videos to tables: `predict_one` writes everything of one input, `predict_all` runs it on Ray Data.

Each input gives `<name>.csv` (or `.parquet`), on request plots and an overlay video, and `<name>.json` beside them,
written last: its presence says that the rest is whole, its identity what it was made from. Run again, inputs whose
sidecar still fits are skipped; what was cut off is done again from its start. Tables are written as the video is read,
so memory does not grow with its length. One input that cannot be read fails alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, Literal, TextIO

import cv2
from pydantic import BaseModel, ConfigDict, Field

from ssm_platform.base import in_companion, open_storage, part_path
from ssm_platform.faces import decided
from ssm_platform.media import PICTURE_ENDINGS, VIDEO_ENDINGS, open_input
from ssm_platform.models import ModelDescription, locate, pinned, registry_uri
from ssm_platform.read.model_reader import ModelReader
from ssm_platform.read.provenance import provenance
from ssm_platform.read.rows import AnalysisOptions, read_opened
from ssm_platform.read.tables import csv_header, csv_lines, open_table
from ssm_platform.read.windows import Row

_MANY, _BUSY = 8, 2
"""Inputs from which workers on Ray may pay, and the cores that one process keeps busy: decoding beside the model."""

FORMAT = 2
"""Version of the outputs; part of their identity."""


class PredictSettings(BaseModel):
    """How inputs are read and what is written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str = Field(default="latest", description="folder of a saved model, or an alias or version of the registry")
    registry: str | None = Field(default=None, description="registry of the alias; None: runs/registry")
    table: Literal["csv", "parquet"] = Field(default="csv", description="form of the tables")
    plots: bool = Field(
        default=False,
        description="also draw AU timelines with the expression above them, per face, and where each AU was looked for",
    )
    overlay: bool = Field(default=False, description="also write the video with boxes, expression and present AUs")
    blur: bool = Field(default=False, description="faces in overlays and heat maps are made unrecognisable")
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="where the model runs")
    batch: int = Field(default=8, ge=1, description="clips in one forward pass")
    workers: int | None = Field(default=None, ge=1, description="inputs read at once; None: as many as the CPUs allow")
    cpus: float = Field(default=1, gt=0, description="CPUs of a worker; its whole part is the threads of its model")
    gpus: float = Field(default=0, ge=0, description="GPUs, or a share of one, of a worker")
    analysis: AnalysisOptions = Field(default=AnalysisOptions(), description="how a video is read")


@dataclass(frozen=True)
class Job:
    """One input: a path or s3:// address, and its name below the output folder, to which endings are added."""

    source: str
    name: str


@dataclass(frozen=True)
class Outcome:
    """What became of one input."""

    source: str
    status: Literal["done", "skipped", "failed"]
    reason: str = ""
    frames: int = 0
    rows: int = 0
    seconds: float = 0.0


def find_jobs(inputs: Sequence[str]) -> list[Job]:
    """Files, videos and pictures below folders and s3:// prefixes. ValueError for none, and for two of one name."""
    jobs = [job for text in inputs for job in _expand(text)]
    if not jobs:
        raise ValueError(f"no video or picture in {', '.join(inputs)}; endings: {', '.join(_ENDINGS)}")
    by_name: dict[str, Job] = {}
    for job in jobs:
        other = by_name.setdefault(job.name, job)
        if other.source != job.source:
            raise ValueError(f"{other.source} and {job.source} would both be written as {job.name}: run them apart")
    return list(by_name.values())


def predict_all(jobs: Sequence[Job], out: Path, settings: PredictSettings) -> Iterator[Outcome]:
    """Outcomes of all jobs as they come; needs a running Ray."""
    import ray
    from ray.data import ActorPoolStrategy

    from ssm_platform.cluster import executed, rows_of

    settings, out = _settled(settings), writable(out)
    pool = ActorPoolStrategy(size=min(len(jobs), settings.workers or _workers(settings)))
    rows = ray.data.from_items([asdict(job) for job in jobs], override_num_blocks=len(jobs)).map_batches(
        Worker,
        fn_constructor_args=(str(out.absolute()), settings),
        batch_size=1,
        compute=pool,
        num_cpus=settings.cpus,
        num_gpus=settings.gpus,
    )
    for row in executed(rows, rows_of):
        yield Outcome(**row)


def predict_here(jobs: Sequence[Job], out: Path, settings: PredictSettings) -> Iterator[Outcome]:
    """Outcomes of all jobs as they come, read one after another in this process, on all its cores."""
    settings, out = _settled(settings), writable(out)
    reader = _reader(settings)
    for job in jobs:
        yield predict_one(job, out, reader, settings)


def wants_cluster(inputs: int, settings: PredictSettings) -> bool:
    """Whether starting Ray (some 10 s, and a model in every worker) pays: enough inputs, and cores that would idle."""
    if settings.workers is not None or settings.gpus:
        return (settings.workers or 2) > 1
    return inputs >= _MANY and len(os.sched_getaffinity(0)) >= 2 * _BUSY * settings.cpus


def write_csv(jobs: Sequence[Job], out: TextIO, settings: PredictSettings) -> Outcome:
    """The table of one input as CSV lines, while it is read. ValueError for several, and for what needs a folder."""
    if len(jobs) != 1:
        raise ValueError(f"standard output takes the table of one input; there are {len(jobs)}: name a folder")
    if settings.plots or settings.overlay or settings.table != "csv":
        raise ValueError("standard output takes a CSV alone: name a folder for plots, overlays and Parquet")
    job, reader = jobs[0], _reader(_settled(settings))
    model = reader.description.shown(settings.analysis.expressions, settings.analysis.uncertainty)
    try:
        with _local(job.source) as path:
            source = open_input([path], settings.analysis.decoder, settings.analysis.limits)
            out.write(csv_header(model.vocabulary, model.evidence))
            for result in read_opened(source, reader, settings.analysis, settings.batch):
                if isinstance(result, Row):
                    out.write(csv_lines([result], model.vocabulary, model.evidence))
    except cv2.error as error:
        raise ValueError(f"{job.source}: {error}") from error
    return Outcome(job.source, "done", "", source.facts.frames)


def _settled(settings: PredictSettings) -> PredictSettings:
    """The same wherever it is read: a model that does not change, a registry of everybody, a detector that is named."""
    registry = registry_uri(settings.registry)  # actors stand in other folders
    analysis = settings.analysis.model_copy(update={"detection": decided(settings.analysis.detection)})
    changes = {"model": pinned(settings.model, registry), "registry": registry, "analysis": analysis}
    return settings.model_copy(update=changes)


def _reader(settings: PredictSettings) -> ModelReader:
    folder = locate(settings.model, settings.registry)
    return ModelReader(folder, settings.device, threads=max(int(settings.cpus), len(os.sched_getaffinity(0))))


def writable(out: Path) -> Path:
    """The output folder, made where it is absent. ValueError where nothing can be written there."""
    out = out.expanduser().absolute()
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            return out
    except OSError as error:
        raise ValueError(f"{out}: the output folder cannot be written ({error.strerror or error})") from error


class Worker:
    """One actor of the pool: a model, and inputs one after another."""

    def __init__(self, out: str, settings: PredictSettings) -> None:
        self._out, self._settings = Path(out), settings
        folder = locate(settings.model, settings.registry)
        self._reader = ModelReader(folder, settings.device, threads=max(1, int(settings.cpus)))

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        job = Job(str(batch["source"][0]), str(batch["name"][0]))
        outcome = predict_one(job, self._out, self._reader, self._settings)
        return {key: [value] for key, value in asdict(outcome).items()}


def predict_one(job: Job, out: Path, reader: ModelReader, settings: PredictSettings) -> Outcome:
    """Write everything of one input below `out`; a refused input gives a failed outcome, not an error."""
    import time

    start = time.perf_counter()
    sidecar = out / f"{job.name}.json"
    try:
        identity = _identity(job, reader.description, settings)
        if _is_done(sidecar, identity):
            return Outcome(job.source, "skipped")
        sidecar.unlink(missing_ok=True)  # it vouches for the table that is replaced now
        with _local(job.source) as path:
            facts = _write(path, job, out, reader, settings)
        _write_whole(sidecar, {"identity": identity, "source": job.source, **facts})
    except OSError as error:  # a disk that is full, a folder that may not be written
        reason = f"{error.filename or sidecar}: {error.strerror or error}"
        return Outcome(job.source, "failed", reason, seconds=time.perf_counter() - start)
    except (ValueError, cv2.error) as error:
        return Outcome(job.source, "failed", str(error), seconds=time.perf_counter() - start)
    return Outcome(job.source, "done", "", facts["video"]["frames"], facts["rows"], time.perf_counter() - start)


def _write(path: Path, job: Job, out: Path, reader: ModelReader, settings: PredictSettings) -> dict[str, Any]:
    """Table, plots and overlay of one local file; returns the sidecar's facts."""
    from ssm_platform.read.heat_maps import HeatMaps
    from ssm_platform.read.overlay import overlay_ending, write_overlay
    from ssm_platform.read.timeline import plot_faces

    model = reader.description.shown(settings.analysis.expressions, settings.analysis.uncertainty)
    source = open_input([path], settings.analysis.decoder, settings.analysis.limits)
    table = out / f"{job.name}.{settings.table}"
    maps = HeatMaps(reader, settings.blur) if settings.plots and reader.description.places else None
    rows = success = 0
    faces: set[int] = set()
    with open_table(table, model.vocabulary, model.evidence) as writer:
        seen = None if maps is None else maps.see
        for result in read_opened(source, reader, settings.analysis, settings.batch, seen):
            if isinstance(result, Row):
                writer.write([result])
                rows, success = rows + 1, success + result.success
                faces.update([] if result.face_id is None else [result.face_id])
    extras: list[Path] = []
    if settings.plots:
        extras += plot_faces(table, model.vocabulary, out / job.name)
    if maps is not None:
        extras += maps.write(out / job.name)
    if settings.overlay:
        drawn = out / f"{job.name}{overlay_ending(source)}"
        extras.append(write_overlay(source, table, model.vocabulary, drawn, blur=settings.blur))
    counts = {"rows": rows, "rows_with_face": success, "faces": len(faces)}
    files = [str(file.relative_to(out)) for file in (table, *extras)]
    return {**counts, "files": files, **provenance(source.facts, model, settings.model, settings.analysis)}


def _identity(job: Job, model: ModelDescription, settings: PredictSettings) -> str:
    """What the outputs depend on: the input (a file's size and time, an object's address), the model, the settings."""
    stat = [] if job.source.startswith("s3://") else _stat(job.source)
    wanted = {"table", "plots", "overlay", "blur", "analysis"}
    chosen = settings.model_dump(mode="json", include=wanted)
    content = json.dumps([FORMAT, job.source, stat, model.version, chosen], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _stat(path: str) -> list[int]:
    try:
        stat = os.stat(path)
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    return [stat.st_size, stat.st_mtime_ns]


def _is_done(sidecar: Path, identity: str) -> bool:
    try:
        known = json.loads(sidecar.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return False
    except ValueError:
        return False
    return isinstance(known, dict) and known.get("identity") == identity


def _write_whole(path: Path, content: dict[str, Any]) -> None:
    part = part_path(path)
    part.write_text(json.dumps(content, indent=1), encoding="utf-8")
    part.replace(path)


@contextmanager
def _local(source: str) -> Iterator[Path]:
    """The input as a local file; an object is copied for as long as the block runs."""
    if not source.startswith("s3://"):
        yield Path(source)
        return
    prefix, _, key = source.rpartition("/")
    with open_storage(prefix).as_file(key) as path:
        yield path


_NAME_BYTES = 255 - len(".overlay.mp4")
_ENDINGS = (*VIDEO_ENDINGS, *PICTURE_ENDINGS)


def _expand(text: str) -> list[Job]:
    if text.startswith("s3://"):
        storage = open_storage(text)
        return [Job(f"{storage.uri}/{key}", _short(key)) for key in storage.list() if _is_input(PurePosixPath(key))]
    path = Path(text).expanduser().absolute()
    if path.is_dir():
        below = sorted(file.relative_to(path) for file in path.rglob("*") if _is_input(file.relative_to(path)))
        return [Job(str(path / file), _short(file.as_posix())) for file in below if (path / file).is_file()]
    if not path.is_file():
        raise ValueError(f"{text}: no such file, folder or s3:// prefix")
    return [Job(str(path), _short(path.name))]


def _is_input(path: PurePath) -> bool:
    """Whether a file found in a folder is meant to be read, by its name."""
    return path.suffix.lower() in _ENDINGS and not in_companion(path.parts)


def _short(name: str) -> str:
    """The name of an input's outputs: its own, cut where theirs would be longer than a file's may be."""
    folder, _, last = name.rpartition("/")
    data = os.fsencode(last)
    if len(data) > _NAME_BYTES:
        digest = hashlib.sha256(data).hexdigest()[:8]
        last = f"{data[: _NAME_BYTES - 9].decode(errors='ignore')}-{digest}"
    return f"{folder}/{last}" if folder else last


def _workers(settings: PredictSettings) -> int:
    import ray

    total: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    by_cpu = total.get("CPU", 1.0) / settings.cpus
    by_gpu = total.get("GPU", 0.0) / settings.gpus if settings.gpus else by_cpu
    return max(1, int(min(by_cpu, by_gpu)))
