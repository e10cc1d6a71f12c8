"""Recipes over real faces that anybody may fetch: FER-2013 beside drawn AUs on two CPU cores, all open corpora at once.

Folders are for the user to set (`--data.corpora.fer2013.root=...`); docs/real_faces.md says how the files lie. Nobody
has coded AUs on these faces: AU labels are those of drawn faces (or of the user's own AU corpora), so what such a
model says of AUs on real faces is measured by FACS consistency alone (`bench/consistency.py`).
"""

from __future__ import annotations

from typing import Any

from ssm.labels import BASIC_EXPRESSIONS, BP4D_AUS, EXPRESSIONS, Vocabulary
from ssm.model import BackboneConfig, ExpressionTimeConfig, MappingConfig, ModelConfig, TextConfig
from ssm.training import Augmentation, LossConfig, OptimConfig, Photograph, TrainConfig
from ssm_platform.runs.config import CheckpointConfig, CorpusConfig, DataConfig, RunConfig, ScaleConfig

AS_STILLS = Photograph(grey=0.8, colour=0.15, contrast=0.4, blur=1.0, resolution=0.6, jpeg=50)
"""Makes a drawn or filmed face look like a small grey web image, most of the time."""

_MEAN, _STD = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
"""Of standardised frames."""

_STILLS = Augmentation(
    scale=(0.75, 1.0), ratio=(0.9, 1.1), flip=0.5, rotation=14, brightness=0.2, photograph=Photograph(contrast=0.3)
)
_DRAWN = Augmentation(scale=(0.6, 1.0), ratio=(0.9, 1.1), flip=0.5, rotation=10, brightness=0.2, photograph=AS_STILLS)
_CLIPS = _DRAWN.model_copy(update={"scale": (0.75, 1.0)})
_FER_PARTS: dict[str, Any] = {"test_parts": ("PrivateTest",), "validation_parts": ("PublicTest",)}


def real_faces() -> RunConfig:
    """FER-2013's expressions and drawn faces' AUs in one small network from scratch, for two CPU cores.

    Stills are clips of one frame and cost one. DEVIATION: a plain convolutional network without private experts (it has
    no feed-forward blocks to put them beside): from scratch on small grey faces it learns in minutes what the
    transformer of the method needs pretraining for. AU losses weigh 0.3: each loss is divided by its running mean, and
    drawn AUs are three times as easy as noisy expressions. Three things keep a net from scratch from answering all
    pictures alike (docs/real_faces.md): its weights start on the first batch, heads learn before it does, and the AU
    losses come after the first 40th, rising to their weight over the next tenth. The net sees luminance alone, each
    frame at its own mean and deviation. Targets of noisy labels are smoothed, and answers are of a face and its mirror
    image.
    bfloat16 halves the price of a step on CPUs that have it.
    """
    corpora = (
        CorpusConfig(name="fer2013", root="corpora/fer2013", augmentation=_STILLS, **_FER_PARTS),
        _drawn_aus("runs/corpora/real_faces/bp4d"),
    )
    return RunConfig(
        name="real-faces",
        steps=16000,
        validate_every=1000,
        validation_clips=1200,
        data=DataConfig(corpora=corpora, fe_batch=64, au_batch=4, mean=_MEAN, std=_STD, grey=True, standardise=True),
        model=ModelConfig(
            vocabulary=Vocabulary(aus=BP4D_AUS, expressions=BASIC_EXPRESSIONS),
            backbone=_plain(),
            width=128,
            frames=4,
            text=TextConfig(style="label", contexts=4),
            expression_time=ExpressionTimeConfig(heads=4, head_width=32, hidden=256),
        ),
        train=TrainConfig(
            optim=_from_scratch(),
            loss=LossConfig(fe_smoothing=0.1, au=0.3, au_semantic=0.3, au_from=0.025, au_rise=0.1),
            precision="bfloat16",
            data_init=True,
        ),
        scale=ScaleConfig(workers=1, threads_per_worker=1),
        checkpoint=CheckpointConfig(every=500),
    )


def open_faces() -> RunConfig:
    """Every corpus that anybody may fetch, stills and clips in one batch, beside drawn AUs; any backbone.

    FER+ brings votes, CREMA-D votes and actors, RAVDESS actors; a corpus that is not at hand is left out by name
    (`--data.corpora=...`), the user's own AU corpora take the place of the drawn one.
    """
    corpora = (
        CorpusConfig(name="ferplus", root="corpora/fer2013", augmentation=_STILLS, **_FER_PARTS),
        CorpusConfig(name="cremad", root="corpora/cremad", augmentation=_CLIPS),
        CorpusConfig(name="ravdess", root="corpora/ravdess", augmentation=_CLIPS),
        _drawn_aus("runs/corpora/real_faces/bp4d"),
    )
    base = real_faces()
    vocabulary = Vocabulary(aus=BP4D_AUS, expressions=EXPRESSIONS[:8])
    return base.model_copy(
        update={
            "name": "open-faces",
            "steps": 12000,
            "data": base.data.model_copy(update={"corpora": corpora, "fe_batch": 48}),
            "model": base.model.model_copy(update={"vocabulary": vocabulary, "mapping": MappingConfig()}),
        }
    )


def photographed(config: RunConfig) -> RunConfig:
    """Drawn and filmed AU faces made to look like small grey stills (way 1 of carrying AUs over to real faces)."""
    corpora = tuple(
        corpus.model_copy(update={"augmentation": corpus.augmentation.model_copy(update={"photograph": AS_STILLS})})
        for corpus in config.data.corpora
    )
    return config.model_copy(update={"data": config.data.model_copy(update={"corpora": corpora})})


def mixed_faces(config: RunConfig) -> RunConfig:
    """Pictures of the FE side mixed into AU clips (way 2)."""
    return _trained(config, au_partners="faces")


def taught_aus(config: RunConfig) -> RunConfig:
    """The map teaches AUs on FE clips by their class (way 3)."""
    return _trained(config, expression_teacher=0.1)


def _trained(config: RunConfig, **changes: Any) -> RunConfig:
    return config.model_copy(update={"train": config.train.model_copy(update=changes)})


def _drawn_aus(root: str) -> CorpusConfig:
    return CorpusConfig(name="bp4d", root=root, synthetic="quickstart", augmentation=_DRAWN, test_parts=("P3",))


def _plain() -> BackboneConfig:
    """0.6 million weights on the 48 pixels that FER-2013 has; nothing is normalised over a batch (`check_exact`)."""
    return BackboneConfig(
        name="plain_cnn", image_size=48, experts=None, channels_last=True, unit_features=True, mirrored=True
    )


def _from_scratch() -> OptimConfig:
    """Rates that rise over the first fiftieth and fall in six halvings, nearly a cosine."""
    return OptimConfig(
        visual_encoder=1e-3,
        experts=1e-3,
        rest=4e-4,
        weight_decay=0.05,
        warmup=0.02,
        frozen=0.002,
        milestones=(0.4, 0.55, 0.67, 0.77, 0.85, 0.92),
        decay=0.5,
        ema=0.999,
    )
