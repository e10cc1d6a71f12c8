"""What the OpenAPI document says of bodies that FastAPI cannot see by itself: uploads, streams, binary tensors."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from serve.http.formats import CSV, JSON, LINES
from serve.protocol import InferenceRequest
from ssm_platform.media import InputInfo


class Problem(BaseModel):
    """Every error."""

    error: str = Field(description="what is wrong, in words")
    request_id: str = Field(description="that of `X-Request-Id`; logs name it")


class Named(BaseModel):
    """An action unit."""

    code: str = Field(description="column name, such as AU12")
    number: int = Field(description="FACS number")
    name: str = Field(description="FACS name")


class Model(BaseModel):
    """The model that is served."""

    name: str = Field(description="name under /v2/models")
    version: str = Field(description="equal versions give equal answers")
    frames: int = Field(description="frames of a clip")
    image_size: int = Field(description="side of a crop in pixels")
    aus: list[Named] = Field(description="action units, in column order")
    expressions: list[str] = Field(description="expressions, in column order")
    affect: list[str] = Field(default=[], description="valence and arousal, where the model reads them")
    preprocessing: str = Field(description="fingerprint of how faces are prepared")
    precision: str = Field(description="type its products are taken in: float32 or bfloat16")
    rule: dict[str, Any] = Field(description="per action unit: threshold, half window, votes")
    rule_fitted: bool = Field(description="false: 0.5 without a vote")
    uncertainty: bool = Field(default=False, description="/v1/model: may be asked for; in an answer: is in its rows")
    where: bool = Field(default=False, description="/v1/model: may be asked for; in an answer: is in it")
    abstention: dict[str, Any] | None = Field(
        default=None, description="when presence of an action unit is withheld (its cell is empty); null: never"
    )
    notice: str = Field(description="what the numbers are and are not, and what the law asks of who deploys this")


class Square(BaseModel):
    """What of a frame a map covers: the square crop that the model read."""

    x: float = Field(description="of its middle, in pixels of the frame")
    y: float = Field(description="of its middle, in pixels of the frame")
    side: float = Field(description="in pixels of the frame")
    roll: float = Field(description="degrees by which it is turned to the right about its middle")


class Place(BaseModel):
    """Where an action unit was looked for, in the frame where it is likeliest of the clip in which most is seen."""

    frame: int = Field(description="number of the frame")
    timestamp: float | None = Field(description="its seconds; null of pictures")
    probability: float = Field(description="of the action unit in that frame, before any smoothing")
    box: tuple[float, float, float, float] = Field(description="x, y, width, height of the face in that frame")
    square: Square
    map: list[list[float]] = Field(
        description="the model's grid over the square, row by row from its top left: which share of its look each "
        "place had. All of a map add up to 1, but for rounding to five places"
    )


class Where(BaseModel):
    """Where the action units of a face were looked for."""

    face_id: int = Field(description="as in rows")
    aus: dict[str, Place] = Field(description="by code")


class Answer(BaseModel):
    """A video or pictures, read."""

    model: Model
    video: InputInfo = Field(description="what was handed in")
    columns: list[str] = Field(description="names of the columns of a row")
    rows: list[dict[str, float | int | None]] = Field(description="one per face and frame, or per frame without a face")
    windows: list[dict[str, Any]] = Field(description="expression over a few frames, and what each AU adds to it")
    where: list[Where] | None = Field(
        default=None, description="with where=on: heat maps of the faces in most frames, at most 8"
    )


class Live(BaseModel):
    """Whether the process answers."""

    live: bool


class Ready(BaseModel):
    """Whether the model answers."""

    ready: bool


class ModelReady(BaseModel):
    """Whether this model answers."""

    name: str
    ready: bool


class ServerMetadata(BaseModel):
    """/v2."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(BaseModel):
    """A tensor of the model."""

    name: str
    datatype: str
    shape: list[int] = Field(description="-1: any")
    parameters: dict[str, Any] = Field(default={}, description="labels of the last axes")


class ModelMetadata(BaseModel):
    """/v2/models/{name}."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class IndexEntry(BaseModel):
    """A model that is served."""

    name: str
    version: str
    state: str = Field(description="READY")
    reason: str


class ResponseTensor(BaseModel):
    """An output tensor; `data` is absent with the binary extension."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float] | None = None
    parameters: dict[str, Any] = {}


class InferenceResponse(BaseModel):
    """The JSON part of an inference response."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[ResponseTensor]


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The errors a route can answer with."""
    return {status: {"model": Problem, "description": _MEANING[status]} for status in statuses}


UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "format": "binary"},
                            "description": "one video, or one or more pictures",
                        }
                    },
                    "additionalProperties": False,
                }
            }
        },
    }
}

ANSWER: dict[str, Any] = {
    "model": Answer,
    "description": "Rows and windows; as lines of JSON they come while the video is read, heat maps after all rows",
    "content": {JSON: {}, CSV: {"schema": {"type": "string"}}, LINES: {"schema": {"type": "string"}}},
}

TENSORS: dict[str, Any] = {
    "parameters": [
        {
            "name": "Inference-Header-Content-Length",
            "in": "header",
            "required": False,
            "schema": {"type": "integer", "minimum": 0},
            "description": "length of the JSON part where binary tensors follow it",
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            JSON: {"schema": InferenceRequest.model_json_schema()},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    },
}

TENSOR_ANSWER: dict[str, Any] = {
    "model": InferenceResponse,
    "description": "Output tensors",
    "content": {JSON: {}, "application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
}

_MEANING = {
    400: "The request is malformed",
    401: "A bearer token is needed",
    403: "The Host header names another service",
    404: "There is no such thing here",
    405: "The method is not allowed here",
    406: "No answer in a form the client accepts",
    408: "The client stopped sending, or sends too slowly",
    413: "More than the limits allow",
    415: "A body of this type is not accepted",
    422: "The file or the values cannot be used",
    503: "Too much to do just now; see Retry-After",
    504: "The time limit was reached",
    507: "No room on the disk",
}
