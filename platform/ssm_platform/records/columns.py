"""Arrow columns as plain numbers and bytes: what a manifest needs of Arrow beyond tables.

Flat label lists without a Python integer per label, numpy views, and the content of a column whatever its buffers
look like.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


def flat_list(rows: list[npt.NDArray[Any] | None], kind: pa.DataType) -> pa.Array:
    """Arrays as one large_list of `kind` over one buffer, without a Python number per label."""
    if all(row is None for row in rows):
        return pa.nulls(len(rows), pa.large_list(kind))
    filled = [np.zeros(0, kind.to_pandas_dtype()) if row is None else row for row in rows]
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in filled])]).astype(np.int64)
    return pa.LargeListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(filled)))


def taken(array: pa.Array, rows: npt.NDArray[np.int64]) -> pa.Array:
    """The rows of an array. Of lists run by run: Arrow's own `take` makes a number of eight bytes for each of their
    values, here a byte each.
    """
    if not pa.types.is_large_list(array.type) or array.null_count:
        return array.take(pa.array(rows))
    runs = np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1)
    slices = [array.slice(int(run[0]), len(run)) for run in runs if len(run)]
    return pa.concat_arrays([*slices, array.slice(0, 0)])  # of one array alone it would be a view that keeps them all


def view(array: pa.Array) -> npt.NDArray[Any]:
    """An Arrow array without nulls as numpy, read-only; no copy for numbers."""
    values: npt.NDArray[Any] = array.to_numpy(zero_copy_only=False)
    values.flags.writeable = False
    return values


def logical_bytes(array: pa.Array) -> Iterator[bytes | memoryview]:
    """The content of an Arrow array, whatever its offsets and validity buffers look like."""
    yield np.packbits(view(pc.is_null(array))).tobytes()
    if pa.types.is_large_list(array.type):
        yield view(pc.fill_null(pc.list_value_length(array), 0)).tobytes()
        yield from logical_bytes(array.flatten())
    elif pa.types.is_large_string(array.type):
        yield view(pc.fill_null(pc.binary_length(array), 0)).tobytes()
        yield _text(pc.fill_null(array, ""))
    else:
        yield view(pc.fill_null(array, 0)).tobytes()


def _text(array: pa.Array) -> bytes | memoryview:
    """The characters of a large_string array without nulls, as they lie in its buffer."""
    if not len(array):
        return b""
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, np.int64, len(array) + 1, array.offset * 8)
    return b"" if data is None else memoryview(data)[int(bounds[0]) : int(bounds[-1])]
