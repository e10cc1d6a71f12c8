"""Open Inference Protocol (v2): bytes of a request to arrays, arrays to bytes of a response. Pure, no HTTP.

JSON tensors and the binary data extension both ways: with `Inference-Header-Content-Length: N` the body is N bytes
of JSON, then the tensors that carry `binary_data_size`, in order. Malformed input is `ProtocolError`, a ValueError
whose message names the tensor, the value and the rule.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from serve.protocol.messages import DATATYPES, InferenceRequest, InputTensor, ProtocolError, RequestedOutput


@dataclass(frozen=True)
class Decoded:
    """A request whose tensors are arrays."""

    request: InferenceRequest
    inputs: dict[str, NDArray[Any]]


def decode(body: bytes, header_length: int | None) -> Decoded:
    """Parse a request body; `header_length` is the value of `Inference-Header-Content-Length` where it was sent."""
    if header_length is not None and not 0 <= header_length <= len(body):
        raise ProtocolError(f"Inference-Header-Content-Length is {header_length}: the body has {len(body)} bytes")
    text, binary = (body, b"") if header_length is None else (body[:header_length], body[header_length:])
    request = _parse(text)
    inputs: dict[str, NDArray[Any]] = {}
    offset = 0
    for tensor in request.inputs:
        if tensor.name in inputs:
            raise ProtocolError(f"input {tensor.name!r} is given twice")
        size = _binary_size(tensor)
        inputs[tensor.name] = _array(tensor, None if size is None else binary[offset : offset + size])
        offset += size or 0
    if offset != len(binary):
        raise ProtocolError(f"{len(binary)} bytes follow the JSON part, the inputs name {offset}")
    return Decoded(request, inputs)


def encode(
    request: InferenceRequest, outputs: dict[str, NDArray[Any]], model: str, version: str
) -> tuple[bytes, int | None]:
    """The response body, and the length of its JSON part where binary tensors follow it (else None)."""
    wanted = request.outputs or [RequestedOutput(name=name) for name in outputs]
    binary_default = request.parameters.get("binary_data_output") is True
    tensors, blobs = [], []
    for output in wanted:
        if output.name not in outputs:
            raise ProtocolError(f"unknown output {output.name!r}; known: {', '.join(outputs)}")
        array = outputs[output.name]
        entry: dict[str, Any] = {"name": output.name, "shape": list(array.shape), "datatype": datatype(array)}
        if output.parameters.get("binary_data", binary_default) is True:
            blobs.append(np.ascontiguousarray(array).tobytes())
            entry["parameters"] = {"binary_data_size": len(blobs[-1])}
        else:
            entry["data"] = array.ravel().tolist()
        tensors.append(entry)
    content: dict[str, Any] = {"model_name": model, "model_version": version, "outputs": tensors}
    if request.id is not None:
        content["id"] = request.id
    header = json.dumps(content, separators=(",", ":")).encode()
    return header + b"".join(blobs), (len(header) if blobs else None)


def datatype(array: NDArray[Any]) -> str:
    """The protocol's name of an array's type."""
    return next(name for name, dtype in DATATYPES.items() if dtype == array.dtype)


def _parse(text: bytes) -> InferenceRequest:
    try:
        return InferenceRequest.model_validate(json.loads(text))
    except RecursionError:
        raise ProtocolError("the JSON part is nested too deeply") from None
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the request"
        raise ProtocolError(f"{where}: {first['msg']}") from None
    except ValueError as error:  # JSON or UTF-8
        raise ProtocolError(f"the JSON part cannot be read: {error}") from None


def _binary_size(tensor: InputTensor) -> int | None:
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        return None
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise ProtocolError(f"input {tensor.name!r}: binary_data_size is {size!r}: must be a whole number of bytes")
    if tensor.data is not None:
        raise ProtocolError(f"input {tensor.name!r} has both data and binary_data_size")
    return size


def _array(tensor: InputTensor, binary: bytes | None) -> NDArray[Any]:
    if tensor.datatype not in DATATYPES:
        raise ProtocolError(f"input {tensor.name!r}: datatype is {tensor.datatype!r}: must be one of {_KNOWN}")
    if any(side < 0 for side in tensor.shape):
        raise ProtocolError(f"input {tensor.name!r}: shape is {tensor.shape}: no side may be negative")
    dtype, count = DATATYPES[tensor.datatype], math.prod(tensor.shape)
    if binary is not None:
        if len(binary) != count * dtype.itemsize:
            rule = f"shape {tensor.shape} of {tensor.datatype} needs {count * dtype.itemsize} bytes"
            raise ProtocolError(f"input {tensor.name!r}: {rule}, {len(binary)} were sent")
        return np.frombuffer(binary, dtype).reshape(tensor.shape)
    return _from_json(tensor, dtype, count)


def _from_json(tensor: InputTensor, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    if not isinstance(tensor.data, list):
        raise ProtocolError(f"input {tensor.name!r}: data must be a list of numbers")
    try:
        values = np.asarray(tensor.data)
    except (ValueError, OverflowError):
        raise ProtocolError(f"input {tensor.name!r}: data is ragged or not numbers") from None
    if values.dtype.kind not in "biuf" and values.size:
        raise ProtocolError(f"input {tensor.name!r}: data holds something that is not a number")
    if values.size != count or (values.ndim > 1 and list(values.shape) != tensor.shape):
        raise ProtocolError(f"input {tensor.name!r}: data has shape {list(values.shape)}, shape says {tensor.shape}")
    if dtype.kind in "iu" and values.size:
        info = np.iinfo(dtype)
        if values.dtype.kind == "f" or values.min() < info.min or values.max() > info.max:
            raise ProtocolError(f"input {tensor.name!r}: {tensor.datatype} holds whole numbers {info.min}..{info.max}")
    return values.astype(dtype).reshape(tensor.shape)


_KNOWN = ", ".join(DATATYPES)
