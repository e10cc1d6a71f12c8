"""What no split may divide: the person where one is known, else the video that several records show, else the clip.

A group has one name in all corpora that show the same people, so splits of theirs can be held together.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ssm_platform.records.clip_names import sequence_of, sequences_of
from ssm_platform.records.manifest import SCHEMA, Manifest


def groups_of(manifest: Manifest) -> tuple[npt.NDArray[np.int32], list[str]]:
    """The group of each record as (codes N, the groups by name and kind: `subject F001`, `video 12-30`, `clip 00007`).

    Like `Manifest.codes`, so that a million records are one array.
    """
    subject, group, clip = (manifest.column(name) for name in ("subject", "group", "clip"))
    known = pc.if_else(_given(group), _named("video", group), _named("clip", sequences_of(clip)))
    encoded = pc.if_else(_given(subject), _named("subject", subject), known).dictionary_encode()
    return encoded.indices.to_numpy(zero_copy_only=False).astype(np.int32, copy=False), encoded.dictionary.to_pylist()


def _given(names: pa.Array) -> pa.Array:
    return pc.fill_null(pc.not_equal(names, ""), False)


def _named(kind: str, names: pa.Array) -> pa.Array:
    return pc.binary_join_element_wise(pa.scalar(kind, names.type), names, pa.scalar(" ", names.type))


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
