"""Ingest: a corpus's records to shards of face crops, resumable, with quarantine. `ingest_shard` is one shard's work;
`run` goes through all that are not yet there, by a `spread` it is given (`ingest.pool` has the one on Ray).

Which records a shard holds is a pure function of manifest and settings, and a shard exists once its manifest does. So a
run that was killed, or lost a worker, repeats only the shards that were not finished. A clip that cannot be used goes
to quarantine with path and reason; past a ceiling the job refuses. Knows no owner's layout and no Ray.

The target then holds `shards/00000.{data,frames,json,parquet}`, `manifest.parquet` (kind "shard"), `quarantine.csv`,
and `ingest.json` (settings, and the fingerprint of what was read).
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from pydantic import Field
from tqdm import tqdm

from ssm_platform.base import MissingKey, Storage, may_return, open_storage
from ssm_platform.faces import CropSettings, Detector, crop_source, decided
from ssm_platform.media import FaceMark, ShardWriter, UnreadableVideo, remove_scratch
from ssm_platform.records import UNKNOWN, Manifest, Record

MANIFEST, QUARANTINE, CLAIM = "manifest.parquet", "quarantine.csv", "ingest.json"
_FREE = {"max_quarantined", "decoder"}  # settings that decide no stored byte: the decoders agree on frames
_READERS = 16
_SHOWN = 5  # quarantined clips quoted in an error


class IngestSettings(CropSettings):
    """How a corpus becomes shards."""

    frames_per_shard: int = Field(
        default=4096, ge=1, description="frames after which a new shard begins; about 90 MiB at 256 pixels"
    )
    max_quarantined: float = Field(
        default=0.05, ge=0, le=1, description="share of clips in quarantine past which the job refuses"
    )


class IngestRefused(ValueError):
    """Too many clips could not be used, or the target holds something else."""


class Quarantined(NamedTuple):
    """A clip that was left out."""

    clip: str
    path: str
    reason: str


class ShardTask(NamedTuple):
    """A shard to make: its name and its records `first..last-1` of the manifest."""

    name: str
    first: int
    last: int


class ShardResult(NamedTuple):
    """What one shard came to."""

    name: str
    frames: int
    quarantined: int


@dataclass(frozen=True)
class IngestSummary:
    """What the whole ingest came to, finished shards of earlier runs included."""

    manifest: str
    clips: int
    frames: int
    faceless: int  # frames in which no face was found
    quarantined: list[Quarantined]


Spread = Callable[[Manifest, str, IngestSettings, list[ShardTask]], Iterable[ShardResult]]
"""Runs `ingest_shard` for each task, in any order and place."""


def run(manifest: Manifest, out: str | Path, settings: IngestSettings, spread: Spread) -> IngestSummary:
    """Ingest what is not yet in `out`. IngestRefused past the ceiling, or where `out` holds another ingest."""
    if not len(manifest):
        raise IngestRefused(f"{manifest.corpus}: no records to ingest")
    settings = settings.model_copy(update={"faces": decided(settings.faces)})
    if settings.alignment == "eyes" and settings.faces.detector == "haar":
        raise IngestRefused("alignment 'eyes' needs the points of YuNet, and faces.detector is 'haar'")
    storage = open_storage(out)
    _claim(storage, manifest, settings)
    tasks = assign(manifest, settings)
    done = set(storage.list("shards/"))
    todo = [task for task in tasks if _piece(task) not in done]
    with tqdm(disable=None, total=int(manifest.lengths.sum()), unit="frame", desc=f"ingest {manifest.corpus}") as bar:
        bar.update(sum(_frames(manifest, task) for task in tasks) - sum(_frames(manifest, task) for task in todo))
        by_name = {task.name: task for task in todo}
        for result in spread(manifest, storage.uri, settings, todo):
            bar.update(_frames(manifest, by_name[result.name]))
    return _finish(storage, manifest, settings, tasks)


def assign(manifest: Manifest, settings: IngestSettings) -> list[ShardTask]:
    """Records in their order, a new shard after every `frames_per_shard` frames or more; a record is never split."""
    tasks, first, frames = list[ShardTask](), 0, 0
    for index, length in enumerate(manifest.lengths.tolist()):
        frames += length
        if frames >= settings.frames_per_shard or index == len(manifest) - 1:
            tasks.append(ShardTask(f"shards/{len(tasks):05d}", first, index + 1))
            first, frames = index + 1, 0
    return tasks


def ingest_shard(
    manifest: Manifest, out: str, settings: IngestSettings, task: ShardTask, detector: Detector
) -> ShardResult:
    """Make one shard; its manifest is written last."""
    storage = open_storage(out)
    records, left_out, faceless = list[Record](), list[Quarantined](), 0
    with ShardWriter(storage, task.name) as writer:
        for index in range(task.first, task.last):
            record = manifest[index]
            source = crop_source(record, Path(manifest.root), manifest.corpus, settings, detector)
            try:
                start, marks = writer.add(record.clip, source.frames())
            except UnreadableVideo as error:
                if may_return(error):  # an outage is no clip's fault
                    raise
                left_out.append(Quarantined(record.clip, error.path, error.reason))
            else:
                records.append(_stored(record, writer.source, start, marks, source.kind.text))
                faceless += marks.count(FaceMark.NONE)
        report = {"quarantined": left_out, "faceless": faceless}
        storage.write(_report(task), json.dumps(report).encode())
        writer.publish(Manifest.build(out, manifest.corpus, manifest.task, manifest.labels, records))
    return ShardResult(task.name, sum(record.length for record in records), len(left_out))


def read_manifest(uri: str | Path) -> Manifest:
    """The manifest of finished shards in a folder or below an `s3://` prefix, with that place as its root."""
    storage = open_storage(uri)
    return Manifest.from_bytes(storage.read(MANIFEST), root=storage.uri)


def _stored(record: Record, source: str, start: int, marks: list[FaceMark], crop: str) -> Record:
    """The record in the shard. Frame labels of frames without a face become unknown: nobody can see them there."""
    aus, affect = record.au_labels, record.va_labels
    hidden = (np.array(marks) == FaceMark.NONE)[:, None]
    if aus is not None:
        aus = np.where(hidden, np.int8(UNKNOWN), aus)
    if affect is not None:
        affect = np.where(hidden, np.float32(np.nan), affect)
    stored = replace(record, source=source, kind="shard", start=start, files=None, crop=crop)
    return replace(stored, au_labels=aus, va_labels=affect)


def _claim(storage: Storage, manifest: Manifest, settings: IngestSettings) -> None:
    """Write down what is ingested here; refuse to mix it with anything else."""
    claim = json.loads(settings.model_dump_json(exclude=_FREE)) | {"manifest": manifest.fingerprint}
    for fields, name, before in ((claim, "alignment", "none"), (claim["faces"], "identity", "track")):
        if fields[name] == before:  # what came later says nothing where it changes nothing
            del fields[name]
    if claim["faces"]["embedding"] is None:
        del claim["faces"]["embedding"]
    try:
        there = {name: value for name, value in json.loads(storage.read(CLAIM)).items() if name not in _FREE}
    except MissingKey:
        storage.write(CLAIM, json.dumps(claim, indent=1).encode())
        return
    other = sorted(name for name in claim | there if claim.get(name) != there.get(name))
    if other:
        raise IngestRefused(f"{storage.uri}: holds an ingest with another {', '.join(other)}; choose another target")


def _finish(storage: Storage, manifest: Manifest, settings: IngestSettings, tasks: list[ShardTask]) -> IngestSummary:
    with ThreadPoolExecutor(_READERS) as pool:  # a corpus has thousands of shards, and each read is a round trip
        reports = [json.loads(data) for data in pool.map(storage.read, map(_report, tasks))]
    left_out = [Quarantined(*row) for report in reports for row in report["quarantined"]]
    storage.write(QUARANTINE, _csv(left_out))
    if len(left_out) > settings.max_quarantined * len(manifest):
        raise IngestRefused(_too_many(storage, manifest, settings, left_out))
    with ThreadPoolExecutor(_READERS) as pool:
        pieces = [Manifest.from_bytes(data) for data in pool.map(storage.read, map(_piece, tasks))]
    table = pa.concat_tables([piece.table for piece in pieces])
    whole = Manifest(storage.uri, manifest.corpus, manifest.task, manifest.labels, table)
    storage.write(MANIFEST, whole.to_bytes())
    remove_scratch(storage)
    return IngestSummary(
        manifest=f"{storage.uri}/{MANIFEST}",
        clips=len(whole),
        frames=int(whole.lengths.sum()),
        faceless=sum(report["faceless"] for report in reports),
        quarantined=left_out,
    )


def _too_many(storage: Storage, manifest: Manifest, settings: IngestSettings, left_out: list[Quarantined]) -> str:
    lines = [f"  {clip}: {path}: {reason}" for clip, path, reason in left_out[:_SHOWN]]
    return "\n".join(
        [
            f"{storage.uri}: {len(left_out)} of {len(manifest)} clips are in quarantine, "
            f"over max_quarantined {settings.max_quarantined:g}; all in {QUARANTINE}",
            *lines,
        ]
    )


def _csv(rows: list[Quarantined]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(Quarantined._fields)
    writer.writerows(rows)
    return text.getvalue().encode()


def _piece(task: ShardTask) -> str:
    return f"{task.name}.parquet"


def _report(task: ShardTask) -> str:
    return f"{task.name}.json"


def _frames(manifest: Manifest, task: ShardTask) -> int:
    return int(manifest.lengths[task.first : task.last].sum())
