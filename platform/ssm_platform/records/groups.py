"""What no split may divide: the person where one is known, else the video that several records show, else the clip.

A group has one name in all corpora that show the same people, so splits of theirs can be held together.
"""

from __future__ import annotations

from collections import Counter

import pyarrow as pa

from ssm_platform.records.clip_names import sequence_of
from ssm_platform.records.manifest import SCHEMA, Manifest


def groups_of(manifest: Manifest) -> list[str]:
    """The group of each record (N), by name and kind: `subject F001`, `video 12-30`, `clip 00007`."""
    columns = (manifest.column(name).to_pylist() for name in ("subject", "group", "clip"))
    return [_group(*cells) for cells in zip(*columns, strict=True)]


def _group(subject: str | None, group: str | None, clip: str) -> str:
    if subject:
        return f"subject {subject}"
    return f"video {group}" if group else f"clip {sequence_of(clip)}"


def with_shared_videos(manifest: Manifest) -> Manifest:
    """The same with a group for records of nobody known that are cut out of one video file.

    It is written down here because shards no longer tell which video a clip came from.
    """
    kinds, sources, subjects, clips, groups = (
        manifest.column(name).to_pylist() for name in ("kind", "source", "subject", "clip", "group")
    )
    sequences = {(source, sequence_of(clip)) for source, clip in zip(sources, clips, strict=True)}
    shared = {source for source, count in Counter(source for source, _ in sequences).items() if count > 1}
    rows = zip(kinds, sources, subjects, groups, strict=True)
    found = [
        source if group is None and not subject and kind == "video" and source in shared else group
        for kind, source, subject, group in rows
    ]
    if found == groups:
        return manifest
    at = SCHEMA.get_field_index("group")
    table = manifest.table.set_column(at, SCHEMA.field(at), pa.array(found, SCHEMA.field(at).type))
    return Manifest(manifest.root, manifest.corpus, manifest.task, manifest.labels, table)
