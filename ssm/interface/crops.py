"""What a face crop is: the one thing that a corpus, a model trained on it and whoever serves it must agree on.

Recorded in manifests as text, in a saved model's `Preprocessing` (so in its fingerprint), and made again by serving.
The square is that of OpenCV's frontal cascade whoever found the face (`ssm_platform.faces.squares` converts),
so crops of equal margin and alignment are alike; who found the faces is kept as where they come from.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Alignment = Literal["none", "eyes"]
DetectorFamily = Literal["haar", "yunet"]

MARGIN = 0.25
"""Part of the face's square added on each end where nothing else is said."""


class FaceCrop(BaseModel):
    """How a stored or served frame was cut out of what the camera saw."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Literal["detected", "owner", "frame"] = Field(
        description="detected: a square around a found face; owner: the corpus owner's own crop; frame: not cropped"
    )
    detector: DetectorFamily | None = Field(default=None, description="who found the faces; null: any")
    margin: float | None = Field(default=None, ge=0, le=2, description="part of the square added on each end")
    alignment: Alignment = Field(default="none", description="eyes: turned so that the eyes are level")

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.source == "detected") != (self.margin is not None):
            raise ValueError(
                f"source {self.source!r} with margin {self.margin}: detected crops, and no others, have one"
            )
        if self.source != "detected" and (self.detector is not None or self.alignment != "none"):
            raise ValueError(f"source {self.source!r}: only detected crops have a detector or an alignment")
        return self

    @property
    def text(self) -> str:
        """One word, as manifests hold it: `detected:yunet:0.25:none`, `owner`, `frame`."""
        if self.source != "detected":
            return self.source
        return f"detected:{self.detector or 'any'}:{self.margin:g}:{self.alignment}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of `text`. ValueError names what is no crop."""
        source, *rest = text.split(":")
        names = ("detector", "margin", "alignment")
        fields = {name: value for name, value in zip(names, rest, strict=False) if value != "any"}
        try:
            if len(rest) in (0, len(names)):
                return cls.model_validate({"source": source, **fields})
        except ValidationError:
            pass
        raise ValueError(f"{text!r} is no kind of face crop: detected:DETECTOR:MARGIN:ALIGNMENT, owner or frame")

    def alike(self, other: FaceCrop) -> bool:
        """Whether both give the same square of the same face, whoever found it."""
        return (self.source, self.margin, self.alignment) == (other.source, other.margin, other.alignment)

    @property
    def words(self) -> str:
        """As a sentence names it."""
        if self.source == "owner":
            return "the corpus owner's own crops"
        if self.source == "frame":
            return "whole frames"
        turned = ", eyes level" if self.alignment == "eyes" else ""
        return f"squares around detected faces (margin {self.margin:g}{turned})"


def served_crop(learned: FaceCrop | None) -> FaceCrop:
    """The crop that serving makes for a model: the detected one it learned from, else the plain square."""
    if learned is not None and learned.source == "detected":
        return learned.model_copy(update={"detector": None})
    return FaceCrop(source="detected", margin=MARGIN)


def crop_note(learned: FaceCrop | None) -> str:
    """What somebody should know of the crops a model is given; empty where it is given what it learned from."""
    if learned is None:
        return "what face crops the model learned from is not recorded; it is given plain squares around detected faces"
    if learned.source == "detected":
        return ""
    return f"the model learned from {learned.words}; it is given squares around detected faces (margin {MARGIN:g})"
