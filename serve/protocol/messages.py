"""The JSON part of an Open Inference Protocol request as typed messages, and the protocol's datatypes."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

DATATYPES: dict[str, np.dtype[Any]] = {
    name: np.dtype(code)
    for name, code in {
        "BOOL": "?",
        "UINT8": "u1",
        "UINT16": "<u2",
        "UINT32": "<u4",
        "UINT64": "<u8",
        "INT8": "i1",
        "INT16": "<i2",
        "INT32": "<i4",
        "INT64": "<i8",
        "FP16": "<f2",
        "FP32": "<f4",
        "FP64": "<f8",
    }.items()
}
"""The protocol's datatypes that are plain numbers, as numpy knows them (little-endian on the wire)."""


class ProtocolError(ValueError):
    """The request does not follow the protocol, or does not fit the model."""


class RequestedOutput(BaseModel):
    """An output a client asks for."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(description="name of the output")
    parameters: dict[str, Any] = Field(default={}, description="`binary_data`: true for the binary extension")


class InputTensor(BaseModel):
    """An input as it stands in the JSON part of a request."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(description="name of the input")
    shape: list[int] = Field(max_length=16, description="dimensions")
    datatype: str = Field(description="UINT8, FP32, ...")
    parameters: dict[str, Any] = Field(default={}, description="`binary_data_size`: bytes after the JSON part")
    data: Any = Field(default=None, description="numbers, flat or nested, row-major; absent with binary data")


class InferenceRequest(BaseModel):
    """The JSON part of a request."""

    model_config = ConfigDict(extra="ignore")

    id: str | None = Field(default=None, max_length=256, description="echoed in the response")
    parameters: dict[str, Any] = Field(default={}, description="`binary_data_output`: true makes all outputs binary")
    inputs: list[InputTensor] = Field(min_length=1, max_length=16, description="input tensors")
    outputs: list[RequestedOutput] = Field(default=[], max_length=64, description="outputs wanted; none: all")
