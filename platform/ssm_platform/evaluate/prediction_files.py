"""Predictions on disk: one Parquet file per corpus and side, readable by anybody and read back exactly.

AU files have a row per frame (`sequence`, `stretch`, `subject`, then `AU01` probability and `AU01_label`, -1 unknown;
of models that give evidence also its doubt `AU01_u`, and `AU01_tilted`, the probability as the loss left it);
affect files likewise with `valence` and `valence_label` (nan unknown);
expression files a row per clip (`clip`, `subject`, `label`, then a probability per class, and where people voted their
shares as `happiness_share`). The metadata names the model that made them, so that files of two models are not read as
one evaluation.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ssm.labels import ACTION_UNITS, AFFECT
from ssm.metrics import AffectTable, AUTable, ExpressionTable
from ssm_platform.evaluate.predictions import Table

_AUS, _CLASSES, _AFFECT, _MODEL = b"aus", b"expressions", b"affect", b"model"


def to_parquet(table: Table, model: str = "") -> bytes:
    """The file's bytes; `model` is the digest of the weights that predicted."""
    if isinstance(table, AffectTable):
        content = _va_content(table)
    else:
        content = _au_content(table) if isinstance(table, AUTable) else _fe_content(table)
    content = content.replace_schema_metadata({**content.schema.metadata, _MODEL: model.encode()})
    sink = io.BytesIO()
    pq.write_table(content, sink, compression="zstd")
    return sink.getvalue()


def from_parquet(data: bytes, model: str | None = None) -> Table:
    """The inverse of `to_parquet`; ValueError where the bytes are something else, or predictions of another model."""
    content = pq.read_table(pa.BufferReader(data))
    metadata = content.schema.metadata or {}
    if model is not None and (found := metadata.get(_MODEL, b"").decode()) != model:
        raise ValueError(
            f"predictions of model {found[:12] or '(not named)'}, not of {model[:12]}: evaluate the run again"
        )
    if _AUS in metadata:
        return _au_table(content, tuple(int(au) for au in metadata[_AUS].decode().split(",")))
    if _CLASSES in metadata:
        return _fe_table(content, tuple(metadata[_CLASSES].decode().split(",")))
    if _AFFECT in metadata:
        return _va_table(content)
    wanted = " or ".join(repr(name.decode()) for name in (_AUS, _CLASSES, _AFFECT))
    raise ValueError(f"not a file of predictions: no {wanted} in its metadata")


def _frame_columns(table: AUTable | AffectTable) -> dict[str, pa.Array]:
    """Where each frame is from."""
    stretch = np.repeat(np.arange(len(table.lengths)), table.lengths)
    return {
        "sequence": pa.array(np.array(table.sequences)[stretch]),
        "stretch": pa.array(stretch.astype(np.int32)),
        "subject": pa.array(np.array(table.subjects)[table.subject]),
    }


def _frames_of(content: pa.Table) -> dict[str, Any]:
    """The inverse, as fields of a table."""
    stretch = content["stretch"].to_numpy()
    first = np.flatnonzero(np.diff(stretch, prepend=-1))
    subjects, subject = np.unique(np.array(content["subject"].to_pylist()), return_inverse=True)
    sequence = content["sequence"].to_pylist()
    return {
        "lengths": tuple(np.diff([*first, len(stretch)]).tolist()),
        "sequences": tuple(sequence[row] for row in first),
        "subjects": tuple(map(str, subjects)),
        "subject": subject.astype(np.intp),
    }


def _stacked(content: pa.Table, names: Iterable[str]) -> npt.NDArray[Any]:
    return np.stack([content[name].to_numpy() for name in names], axis=1)


def _va_content(table: AffectTable) -> pa.Table:
    columns = _frame_columns(table)
    for column, name in enumerate(AFFECT):
        columns[name] = pa.array(table.predictions[:, column])
        columns[f"{name}_label"] = pa.array(table.labels[:, column])
    return pa.table(columns).replace_schema_metadata({_AFFECT: ",".join(AFFECT).encode()})


def _va_table(content: pa.Table) -> AffectTable:
    labels = _stacked(content, (f"{name}_label" for name in AFFECT))
    return AffectTable(predictions=_stacked(content, AFFECT), labels=labels, **_frames_of(content))


def _au_content(table: AUTable) -> pa.Table:
    columns = _frame_columns(table)
    for column, au in enumerate(table.aus):
        columns[ACTION_UNITS[au].code] = pa.array(table.probabilities[:, column])
        columns[f"{ACTION_UNITS[au].code}_label"] = pa.array(table.labels[:, column])
        for suffix, values in (("u", table.doubts), ("tilted", table.tilted)):
            if values is not None:
                columns[f"{ACTION_UNITS[au].code}_{suffix}"] = pa.array(values[:, column])
    return pa.table(columns).replace_schema_metadata({_AUS: ",".join(map(str, table.aus)).encode()})


def _au_table(content: pa.Table, aus: tuple[int, ...]) -> AUTable:
    codes = [ACTION_UNITS[au].code for au in aus]
    labels = _stacked(content, (f"{code}_label" for code in codes))
    doubts, tilted = (_optional(content, [f"{code}_{suffix}" for code in codes]) for suffix in ("u", "tilted"))
    return AUTable(
        aus=aus, probabilities=_stacked(content, codes), labels=labels, doubts=doubts, tilted=tilted,
        **_frames_of(content),
    )  # fmt: skip


def _optional(content: pa.Table, names: list[str]) -> npt.NDArray[Any] | None:
    """Columns that a file may lack."""
    return _stacked(content, names) if set(names) <= {*content.schema.names} else None


def _fe_content(table: ExpressionTable) -> pa.Table:
    columns = {
        "clip": pa.array(table.clips),
        "subject": pa.array(np.array(table.subjects)[table.subject]),
        "label": pa.array(np.array(table.expressions)[table.labels]),
    }
    for column, name in enumerate(table.expressions):
        columns[name] = pa.array(table.probabilities[:, column])
        if table.shares is not None:
            columns[f"{name}_share"] = pa.array(table.shares[:, column])
    return pa.table(columns).replace_schema_metadata({_CLASSES: ",".join(table.expressions).encode()})


def _fe_table(content: pa.Table, expressions: tuple[str, ...]) -> ExpressionTable:
    subjects, subject = np.unique(np.array(content["subject"].to_pylist()), return_inverse=True)
    return ExpressionTable(
        expressions=expressions,
        probabilities=np.stack([content[name].to_numpy() for name in expressions], axis=1),
        labels=np.array([expressions.index(name) for name in content["label"].to_pylist()], np.intp),
        clips=tuple(content["clip"].to_pylist()),
        subjects=tuple(map(str, subjects)),
        subject=subject.astype(np.intp),
        shares=_shares(content, expressions),
    )


def _shares(content: pa.Table, expressions: tuple[str, ...]) -> npt.NDArray[np.float32] | None:
    names = [f"{name}_share" for name in expressions]
    if names[0] not in content.schema.names:
        return None
    return np.stack([content[name].to_numpy() for name in names], axis=1)
