"""The model's configuration: every choice the model has, typed, checked and documented.

A variant replaces fields; no code branches on the name of a corpus. The ablations of the paper are settings:
no TSP (`text.tower=None`), no DPM (`mapping.enabled=False`), a fixed prior (`mapping.learn="none"`), one-way
mapping (`mapping.learn="au_to_fe"`). Defaults are the constants of the method (sections 2 to 5).
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ssm.labels import ACTION_UNITS, EXPRESSIONS, PRIOR_OFF, Vocabulary
from ssm.model.affect import AffectConfig

PriorName = Literal["authors_bp4d", "authors_disfa", "emfacs", "uniform", "scrambled", "explicit"]
Directions = Literal["both", "au_to_fe", "fe_to_au", "none"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ExpertsConfig(_Frozen):
    """Shared/private experts in the last feed-forward blocks of the backbone (section 2)."""

    blocks: int = Field(default=6, ge=1, description="how many of the last blocks get private experts")
    count: int = Field(default=4, ge=1, description="private experts per block")
    top: int = Field(default=2, ge=1, description="experts that each token visits")
    hidden: int = Field(default=512, ge=1, description="width between the two linear maps of an expert")
    scale: float = Field(default=0.1, description="start of the learnable factor alpha on the experts' sum")
    noise: float = Field(default=0.01, ge=0, description="standard deviation of the gate noise in training")
    shared_activation: Literal["gelu"] | None = Field(
        default=None,
        description='"gelu" replaces the backbone\'s own activation in the shared expert, as released models have it; '
        "None: as the backbone was pretrained",
    )
    gate_gain: float = Field(default=0.1, gt=0, description="Xavier gain of the gate's weight")

    @model_validator(mode="after")
    def _top_fits(self) -> Self:
        if self.top > self.count:
            raise ValueError(f"experts.top is {self.top}; it may be at most experts.count, {self.count}")
        return self


# fmt: off
NOT_OPTIONS = frozenset({
    "model_name", "model_cls", "model_cfg", "variant", "feature_cfg", "features_only", "kwargs_filter",
    "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "pretrained_strict", "pretrained_filter_fn",
    "pretrained_model_args", "checkpoint_path", "cache_dir", "scriptable", "exportable", "no_jit",
    "num_classes", "in_chans",
})
# fmt: on
"""What `timm.create_model` and its builder take themselves: files to load, code to choose, fields of ours.

A saved model's configuration comes from somebody else: with timm before 1.0.26 a `checkpoint_path` ran its pickle.
"""


class BackboneConfig(_Frozen):
    """The visual backbone: a timm model applied to every frame."""

    name: str = Field(default="vit_base_patch16_clip_224.openai", description="timm model name")
    pretrained: bool = Field(default=False, description="start from timm's weights (needs the hub or its cache)")
    image_size: int = Field(default=224, ge=8, description="height and width of a frame in pixels")
    options: dict[str, Any] = Field(
        default_factory=dict, description="arguments of the timm model itself (depth, ...), none of timm.create_model's"
    )
    experts: ExpertsConfig | None = Field(default_factory=ExpertsConfig, description="None: the plain backbone")
    project: bool = Field(default=True, description="False: the model's own pooled features, whose width `width` is")
    unit_features: bool = Field(
        default=False,
        description="features are brought to mean 0 and deviation 1 over the width: a net from scratch starts with far "
        "smaller ones than the pretrained encoders that the method is made for",
    )
    mirrored: bool = Field(
        default=False,
        description="outside training, features are the mean of the frame and its mirror image: twice the cost",
    )
    channels_last: bool = Field(
        default=False, description="pixels with colours innermost: faster for convolutional networks, rounds otherwise"
    )

    @field_validator("options")
    @classmethod
    def _of_the_model_alone(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name in options:
            if name in NOT_OPTIONS:
                raise ValueError(
                    f"backbone.options holds {name!r}, an argument of timm.create_model: only those of the model "
                    "itself may stand there"
                )
        return options


class TextConfig(_Frozen):
    """Textual semantic prototypes: tower, prompt style and learnable contexts (section 3)."""

    tower: str | None = Field(
        default="minilm",
        description='"minilm" (embedded, offline), a transformers hub id or local folder; None: no TSP',
    )
    style: str = Field(default="facs", description="name of the prompt style: a shipped one, or that of `style_file`")
    style_file: str | None = Field(default=None, description="JSON file of a style of your own")
    scramble: int | None = Field(
        default=None, description="seed of a permutation that gives each label another one's text; None: as written"
    )
    contexts: int = Field(default=8, ge=0, description="learnable context vectors per prompt (K)")
    shared_contexts: bool = Field(default=False, description="one set of contexts for all labels of a task")
    position: Literal["end", "middle", "front"] = Field(
        default="end", description="where the description stands among the contexts"
    )
    context_std: float = Field(default=0.02, gt=0, description="standard deviation of the contexts at the start")


class MappingConfig(_Frozen):
    """Dynamic prior mapping between AUs and expressions (section 4)."""

    enabled: bool = Field(default=True, description="False: prototypes are not fused (no DPM)")
    prior: PriorName = Field(default="emfacs", description='table of linked pairs; "explicit" takes `matrix`')
    matrix: tuple[tuple[float, ...], ...] | None = Field(
        default=None, description="prior of your own, one row per expression, one column per AU"
    )
    on: float = Field(default=1.0, gt=0, description="prior where the table links expression and AU")
    off: float = Field(default=PRIOR_OFF, ge=0, description="prior elsewhere")
    seed: int = Field(default=0, ge=0, description='seed of the column permutation of the "scrambled" prior')
    gate: float = Field(default=0.1, gt=0, lt=1, description="start of both fusion gates")
    learn: Directions = Field(
        default="both",
        description='"both": two learned maps; one name: only this direction is learned and fused; '
        '"none": both directions fused with the fixed prior',
    )

    @model_validator(mode="after")
    def _matrix_iff_explicit(self) -> Self:
        if (self.prior == "explicit") != (self.matrix is not None):
            raise ValueError(f'mapping.matrix is for prior="explicit" and only for it; prior is {self.prior!r}')
        if self.off >= self.on:
            raise ValueError(f"mapping.off is {self.off}; it must lie below mapping.on, {self.on}")
        return self


class ExpressionTimeConfig(_Frozen):
    """The transformer layer over `[cls; frames]` (section 5)."""

    heads: int = Field(default=8, ge=1, description="attention heads")
    head_width: int = Field(default=64, ge=1, description="width of one head")
    hidden: int = Field(default=1024, ge=1, description="width inside its feed-forward part")


class AUTimeConfig(_Frozen):
    """Local frame attention and smoothing on the AU side (section 5)."""

    heads: int = Field(default=8, ge=1, description="attention heads; must divide the width")
    radius: int = Field(default=1, ge=1, description="a frame sees |i-j| <= radius")
    strength: float = Field(default=0.25, gt=0, description="largest share of the context in the result")
    smoothing: int = Field(default=5, ge=1, description="width of the depthwise convolution over time; odd")

    @model_validator(mode="after")
    def _odd_smoothing(self) -> Self:
        if self.smoothing % 2 == 0:
            raise ValueError(f"au_time.smoothing is {self.smoothing}; it must be odd")
        return self


class FocusConfig(_Frozen):
    """How an evidential reader's loss favours what is rare, which its answers then undo (methods, 2)."""

    positive: float = Field(default=0.0, ge=0, le=8, description="g+: a present AU weighs (1 - p)^g+")
    negative: float = Field(default=1.0, ge=0, le=8, description="g-: an absent AU weighs max(p - shift, 0)^g-")
    shift: float = Field(default=0.0, ge=0, lt=0.5, description="m: an absent AU below this probability weighs nothing")


class GraphConfig(_Frozen):
    """The graph of AU nodes and the attention between them and their descriptions (methods, 3)."""

    neighbours: int = Field(default=4, ge=1, description="K: a node hears those among the K most alike, ties included")
    metric: Literal["dot", "cosine", "l1"] = Field(default="dot", description="what alike means")
    heads: int = Field(default=8, ge=1, description="heads of the attention; must divide the width")


class LatentConfig(_Frozen):
    """The latent variable of each AU and frame (methods, 4)."""

    hidden: int = Field(default=128, ge=1, description="H: width of an AU's features at one scale")
    width: int = Field(default=32, ge=1, description="width of the latent variable")
    windows: tuple[int, int, int] = Field(
        default=(1, 5, 15), description="frames that the patch, band and face scales look over; odd"
    )
    samples: int = Field(
        default=0, ge=0, le=64, description="draws of it, the same for all frames, whose evidence evaluation averages; "
        "0: its mean alone"
    )  # fmt: skip

    @model_validator(mode="after")
    def _odd_windows(self) -> Self:
        if any(window < 1 or window % 2 == 0 for window in self.windows):
            raise ValueError(f"au_reader.latent.windows are {self.windows}; each must be odd and at least 1")
        return self


class AUReaderConfig(_Frozen):
    """How AUs are read off a clip's frames: a row of `ssm.model.readers.READERS`, and the settings of its parts."""

    kind: str = Field(
        default="linear",
        description="linear: the method's head; evidential: Beta evidence; hiva: AU nodes and their descriptions; "
        "hiva_evidential: both; cvae_evidential: a latent variable per AU",
    )
    focus: FocusConfig = Field(default=FocusConfig(), description="asymmetry of the evidential loss")
    graph: GraphConfig = Field(default=GraphConfig(), description="of hiva")
    latent: LatentConfig = Field(default=LatentConfig(), description="of cvae_evidential")


class ModelConfig(_Frozen):
    """Everything that fixes the architecture of an `ssm.model.network.SSM`."""

    vocabulary: Vocabulary = Field(
        default=Vocabulary(aus=tuple(ACTION_UNITS), expressions=EXPRESSIONS),
        description="global AU and expression labels: the columns of the two heads",
    )
    backbone: BackboneConfig = Field(default_factory=BackboneConfig, description="visual backbone")
    width: int = Field(default=512, ge=8, description="embedding width D shared by frames and texts")
    frames: int = Field(default=16, ge=2, description="frames T of an FE clip, at most")
    text: TextConfig = Field(default_factory=TextConfig, description="textual prototypes (TSP)")
    mapping: MappingConfig = Field(default_factory=MappingConfig, description="dynamic prior mapping (DPM)")
    expression_time: ExpressionTimeConfig = Field(default_factory=ExpressionTimeConfig, description="FE over time")
    au_time: AUTimeConfig = Field(default_factory=AUTimeConfig, description="AUs over time")
    reading: Literal["clips", "frames"] = Field(
        default="clips", description='"frames": small heads frame by frame on pooled features, nothing over time'
    )
    frame_hidden: int = Field(default=128, ge=1, description='width inside the heads of reading="frames"')
    au_reader: AUReaderConfig = Field(default_factory=AUReaderConfig, description="how AUs are read")
    affect: AffectConfig = Field(default_factory=AffectConfig, description="valence and arousal, if in the vocabulary")
    semantic_weight: float = Field(default=0.1, ge=0, description="weight w of the semantic logits")
    temperature: float = Field(default=0.01, gt=0, description="divisor of the cosines")
    released_behaviour: bool = Field(
        default=False,
        description="reproduce the released forward: pair smoothing and routing that depends on the batch (section 8)",
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if not self.vocabulary.aus or not self.vocabulary.expressions:
            raise ValueError(f"the vocabulary needs at least one AU and one expression; it is {self.vocabulary}")
        if self.width % self.au_time.heads:
            raise ValueError(f"width is {self.width}; au_time.heads, {self.au_time.heads}, must divide it")
        if self.reading == "frames" and (self.text.tower is not None or self.mapping.enabled):
            raise ValueError('reading="frames" has no text side: set text.tower to None and mapping.enabled to False')
        if self.mapping.matrix is not None:
            check_prior_shape(self.mapping.matrix, self.vocabulary)
        return self


def check_prior_shape(matrix: tuple[tuple[float, ...], ...], vocabulary: Vocabulary) -> None:
    """ValueError unless `matrix` has one row per expression, one column per AU and no negative cell."""
    rows, columns = len(vocabulary.expressions), len(vocabulary.aus)
    if len(matrix) != rows or any(len(row) != columns for row in matrix):
        got = f"{len(matrix)} rows of {sorted({len(row) for row in matrix})} cells"
        raise ValueError(f"mapping.matrix has {got}; the vocabulary asks for {rows} rows of {columns}")
    if not all(0 <= cell < float("inf") for row in matrix for cell in row):
        raise ValueError("mapping.matrix has a negative or non-finite cell; every cell must be >= 0")
