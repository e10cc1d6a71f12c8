"""Runs of the frame baseline as functions, by the name that `jobs/frames.py --recipe` takes."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from pathlib import Path

from pydantic import ValidationError

from ssm_platform.base import OverrideError, explain
from ssm_platform.frames.config import EncoderConfig, FrameRun, HeadConfig, HeadsConfig
from ssm_platform.runs import CorpusConfig

_OTHER = {"other": True}  # "other" is a class of these runs and of no other
_PARTS = ("validation",)


def abaw_frame() -> FrameRun:
    """Aff-Wild2's three challenges on EfficientNet-B0 (timm's noisy student); for a holder of the corpus."""
    return FrameRun(
        name="abaw-frame",
        protocol="published",
        corpora=(
            CorpusConfig(name="affwild2_expr", root="corpora/affwild2", options=_OTHER, test_parts=_PARTS),
            CorpusConfig(name="affwild2_au", root="corpora/affwild2", test_parts=_PARTS),
            CorpusConfig(name="affwild2_va", root="corpora/affwild2", test_parts=_PARTS),
        ),
        encoder=EncoderConfig(timm="tf_efficientnet_b0.ns_jft_in1k"),
    )


def abaw_frame_mtl() -> FrameRun:
    """s-Aff-Wild2, three tasks in one list, on the same encoder."""
    corpus = CorpusConfig(name="affwild2_mtl", root="corpora/s_affwild2", options=_OTHER, test_parts=_PARTS)
    return abaw_frame().model_copy(update={"name": "abaw-frame-mtl", "corpora": (corpus,)})


def abaw_frame_onnx() -> FrameRun:
    """The same over an encoder of EmotiEffLib's by path (`--encoder.onnx=...`), whose own classes feed the gate."""
    encoder = EncoderConfig(onnx="models/enet_b0_8_best_vgaf.onnx")
    return abaw_frame().model_copy(update={"name": "abaw-frame-onnx", "encoder": encoder})


def abaw_frame_tiny() -> FrameRun:
    """Drawn faces and an untrained encoder: seconds, for tests and drills."""
    corpus = CorpusConfig(
        name="affwild2_mtl", root="runs/corpora/tiny/affwild2_mtl", synthetic="tiny", options=_OTHER, test_parts=_PARTS
    )
    fast = HeadConfig(epochs=8, batch=32, rate=3e-3)
    return FrameRun(
        name="abaw-frame-tiny",
        corpora=(corpus,),
        encoder=EncoderConfig(
            timm="convnext_atto", pretrained=False, image_size=64,
            options={"dims": [8, 16, 32, 64], "depths": [1, 1, 1, 1]},
        ),
        heads=HeadsConfig(hidden=32, fe=fast, au=fast, va=fast),
    )  # fmt: skip


FRAME_RECIPES: Mapping[str, Callable[[], FrameRun]] = {
    "abaw_frame": abaw_frame,
    "abaw_frame_mtl": abaw_frame_mtl,
    "abaw_frame_onnx": abaw_frame_onnx,
    "abaw_frame_tiny": abaw_frame_tiny,
}
"""Recipes by name."""


def frame_recipe(text: str) -> FrameRun:
    """The run of a recipe's name or of a JSON file; `OverrideError` names the nearest known name."""
    if text.endswith(".json"):
        try:
            return FrameRun.model_validate_json(Path(text).read_text())
        except ValidationError as error:
            raise OverrideError(f"{text}: {explain(error)}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise OverrideError(f"{text}: a recipe in a file is JSON of a frame run ({error})") from error
    if text not in FRAME_RECIPES:
        close = difflib.get_close_matches(text, FRAME_RECIPES, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise OverrideError(f"unknown recipe {text!r}; {hint}known: {', '.join(FRAME_RECIPES)}")
    return FRAME_RECIPES[text]()
