"""The Open Inference Protocol's gRPC messages and service, as its published `grpc_predict_v2.proto` numbers them.

Built from a table at import, in a pool of their own: no generated code, and no clash with a client's copy.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"
_SCALARS = {"double": 1, "float": 2, "int64": 3, "uint64": 4, "int32": 5, "bool": 8, "string": 9, "bytes": 12}
_SCALARS["uint32"] = 13
_TENSOR = "name:1:string datatype:2:string shape:3:int64*"
_NAMED = "name:1:string version:2:string"
_CONTENTS = (
    "bool_contents:1:bool* int_contents:2:int32* int64_contents:3:int64* uint_contents:4:uint32* "
    "uint64_contents:5:uint64* fp32_contents:6:float* fp64_contents:7:double* bytes_contents:8:bytes*"
)
_TABLE = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "live:1:bool",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "ready:1:bool",
    "ModelReadyRequest": _NAMED,
    "ModelReadyResponse": "ready:1:bool",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "name:1:string version:2:string extensions:3:string*",
    "ModelMetadataRequest": _NAMED,
    "TensorMetadata": _TENSOR,
    "ModelMetadataResponse": (
        "name:1:string versions:2:string* platform:3:string inputs:4:TensorMetadata* outputs:5:TensorMetadata*"
    ),
    "InferTensorContents": _CONTENTS,
    "InferInputTensor": f"{_TENSOR} contents:5:InferTensorContents",
    "InferRequestedOutputTensor": "name:1:string",
    "ModelInferRequest": (
        "model_name:1:string model_version:2:string id:3:string inputs:5:InferInputTensor* "
        "outputs:6:InferRequestedOutputTensor* raw_input_contents:7:bytes*"
    ),
    "InferOutputTensor": f"{_TENSOR} contents:5:InferTensorContents",
    "ModelInferResponse": (
        "model_name:1:string model_version:2:string id:3:string outputs:5:InferOutputTensor* "
        "raw_output_contents:6:bytes*"
    ),
}
"""Messages: `name:number:type`, with `*` where a field repeats. Parameters, which we do not read, are left out."""


def _built() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="ssm_open_inference.proto", package="inference", syntax="proto3")
    for name, fields in _TABLE.items():
        message = file.message_type.add(name=name)
        for text in fields.split():
            field, number, kind = text.split(":")
            entry = message.field.add(name=field, number=int(number), label=3 if kind.endswith("*") else 1)
            kind = kind.removesuffix("*")
            if kind in _SCALARS:
                entry.type = _SCALARS[kind]
            else:
                entry.type, entry.type_name = 11, f".inference.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = (pool.FindMessageTypeByName(f"inference.{name}") for name in _TABLE)
    return {descriptor.name: message_factory.GetMessageClass(descriptor) for descriptor in found}


MESSAGES = _built()
"""The message classes by name."""
