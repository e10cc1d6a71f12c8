"""How large and how hard a synthetic corpus is: one value, hashed into the corpus's marker."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

MARKER = "synthetic.json"
"""The file that says what made a corpus."""


def is_drawn(root: Path) -> bool:
    """Whether a synthetic corpus lies in `root`: its pictures are faces, close as a crop, and nobody's."""
    return (root / MARKER).is_file()


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LabSpec(_Frozen):
    """AU corpora: few subjects, long sequences, a label for every frame."""

    subjects: int = Field(default=18, ge=1, le=27, description="subjects, spread evenly over the published parts")
    sequences: int = Field(default=3, ge=1, le=8, description="tasks per subject; DISFA has one video of all of them")
    frames: int = Field(default=200, ge=8, description="frames per sequence")
    nuisance: float = Field(default=1.0, ge=0, le=3, description="factor on head movement, light and noise")
    trait: float = Field(default=0.25, ge=0, lt=1, description="share of AU variance between sequences, not within")
    jitter: float = Field(default=0.45, ge=0, le=3, description="how unsure coders are, in units of intensity (0-5)")
    missing: float = Field(default=0.01, ge=0, le=0.5, description="share of (frame, AU) labels coded 9 on BP4D")


class WildSpec(_Frozen):
    """FE corpora: many people, short clips, one label per clip."""

    clips: int = Field(default=1300, ge=20, description="clips")
    people: int = Field(default=450, ge=1, description="different faces among the clips")
    shortest: int = Field(default=16, ge=1, description="frames of the shortest clip")
    longest: int = Field(default=20, ge=1, description="frames of the longest clip")
    storage: Literal["frames", "video"] = Field(default="frames", description="folders of JPEG frames, or MP4 files")
    nuisance: float = Field(default=1.0, ge=0, le=3, description="factor on pose, light, blur, occlusion, compression")
    strength: float = Field(default=1.0, gt=0, le=1.5, description="factor on the intensity of expressions")
    blend: float = Field(default=0.20, ge=0, le=1, description="share of clips that mix in a second expression")
    label_noise: float = Field(default=0.06, ge=0, le=1, description="share of clips with a wrong label")
    imbalance: float = Field(
        default=0.5, ge=0, le=1, description="power of the published class counts: 0 balanced, 1 as published"
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.shortest > self.longest:
            raise ValueError(f"shortest {self.shortest} > longest {self.longest}: a clip has shortest..longest frames")
        return self


class SyntheticSpec(_Frozen):
    """One corpus or several: lab corpora read `lab`, wild ones `wild`."""

    size: int = Field(default=112, ge=64, le=512, multiple_of=8, description="pixels of a frame's side")
    lab: LabSpec = Field(default=LabSpec(), description="size and difficulty of AU corpora")
    wild: WildSpec = Field(default=WildSpec(), description="size and difficulty of FE corpora")

    def fingerprint(self, corpus: str, seed: int) -> str:
        """Names what a corpus was made from: same fingerprint, same bytes (on one version of the renderer)."""
        text = f"{RENDERER_VERSION} {corpus} {seed} {self.model_dump_json()}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


RENDERER_VERSION = 3
"""Raised whenever the same spec and seed would give other frames or labels."""

PRESETS: Mapping[str, SyntheticSpec] = MappingProxyType(
    {
        "tiny": SyntheticSpec(
            size=64,
            lab=LabSpec(subjects=6, sequences=1, frames=40),
            wild=WildSpec(clips=42, people=20, shortest=14, longest=20),
        ),
        "quickstart": SyntheticSpec(lab=LabSpec(nuisance=0.7), wild=WildSpec(nuisance=0.3, strength=1.4)),
        "study": SyntheticSpec(
            lab=LabSpec(subjects=27, sequences=4, frames=400),
            wild=WildSpec(clips=6000, people=2000, shortest=16, longest=40, nuisance=0.6, strength=1.2),
        ),
    }
)
"""tiny: tests, a second or two. quickstart: a minute on two cores for one AU and one FE corpus, and easy enough for
some hundred steps of a small model from scratch. study: results; the defaults (nuisance 1) are harder still."""
