"""Runs as functions: each recipe returns a `RunConfig`, each modifier turns one into a variant. Constants: method,
section 6.

`recipe("published_bp4d_dfew+no_tsp")` is a recipe with modifiers applied from left to right; `jobs/train.py
--recipe` takes the same text, or the path of a JSON file that `--print-config` wrote. Folders of real corpora are
for the user to set (`--data.corpora.bp4d.root=...`); the defaults below are only where they are looked for.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ssm.labels import AFFECT, BASIC_EXPRESSIONS, BP4D_AUS, DISFA_AUS, EXPRESSIONS, Vocabulary
from ssm.model import (
    AffectConfig,
    BackboneConfig,
    ExpertsConfig,
    ExpressionTimeConfig,
    MappingConfig,
    ModelConfig,
    TextConfig,
)
from ssm.training import AU_AUGMENTATION, FE_AUGMENTATION, Augmentation, OptimConfig, TrainConfig
from ssm_platform.base import OverrideError, explain
from ssm_platform.runs.config import CheckpointConfig, CorpusConfig, DataConfig, RunConfig, ScaleConfig
from ssm_platform.runs.open_recipes import mixed_faces, open_faces, photographed, real_faces, taught_aus

_VALIDATED = 240
"""Clips of a validation on a GPU, all corpora together. They come decoded, in the stream that training reads, and go
through the model once: beside 1,000 steps of 20 clips, both ways, well below a hundredth of a run."""

Recipe = Callable[[], RunConfig]
Modifier = Callable[[RunConfig], RunConfig]

_CLIP_BACKBONE = "vit_base_patch16_clip_224.openai"
_CLIP_TEXT = "openai/clip-vit-base-patch16"
_FE_AUGMENTATIONS: Mapping[str, Augmentation] = {
    "dfew": FE_AUGMENTATION.model_copy(update={"brightness": 0.5}),
    "ferv39k": FE_AUGMENTATION.model_copy(update={"rotation": 4.0}),
    "mafw": FE_AUGMENTATION,
}
_TEST_PARTS: Mapping[str, tuple[str, ...]] = {
    "bp4d": ("P3",),
    "disfa": ("P3",),
    "dfew": ("1",),
    "ferv39k": ("test",),
    "mafw": ("1",),
}
_AUS: Mapping[str, tuple[int, ...]] = {"bp4d": BP4D_AUS, "disfa": DISFA_AUS}
_CLASSES: Mapping[str, tuple[str, ...]] = {
    "dfew": BASIC_EXPRESSIONS,
    "ferv39k": BASIC_EXPRESSIONS,
    "mafw": EXPRESSIONS,
}


def quickstart() -> RunConfig:
    """From nothing to a report on two CPU cores: synthetic BP4D- and DFEW-like corpora, a small backbone from scratch.

    DEVIATION: learning rates of 1e-3 that rise over the first tenth and fall late, since 1e-6 only protects pretrained
    weights; prompts are bare labels with 4 contexts, because the text tower costs more than this backbone does; more
    and shorter clips a step (24 + 24 of 4 frames), because what a network learns from scratch in minutes depends on
    how many faces it sees. Before the rise and the more clips came, together, nothing was learned in 400 steps.
    """
    corpora = tuple(
        _corpus(name, root=f"runs/corpora/quickstart/{name}", synthetic="quickstart", augmentation=augmentation)
        for name, augmentation in (("bp4d", _SMALL_AU), ("dfew", _SMALL_FE))
    )
    return RunConfig(
        name="quickstart",
        steps=1200,
        validate_every=200,
        validation_clips=120,
        data=DataConfig(corpora=corpora, fe_batch=24, au_batch=24),
        model=_small_model(Vocabulary(aus=BP4D_AUS, expressions=BASIC_EXPRESSIONS)),
        train=_from_scratch(),
        scale=ScaleConfig(workers=1, threads_per_worker=2),
        checkpoint=CheckpointConfig(every=100),
    )


def tiny() -> RunConfig:
    """A run of seconds over tiny synthetic corpora, for tests and drills; what it trains is of no use."""
    base = quickstart()
    corpora = tuple(
        corpus.model_copy(update={"root": f"runs/corpora/tiny/{corpus.name}", "synthetic": "tiny"})
        for corpus in base.data.corpora
    )
    model = base.model.model_copy(
        update={
            "frames": 4,
            "width": 32,
            "backbone": BackboneConfig(
                name="convnext_atto",
                image_size=32,
                options={"dims": [8, 16, 32, 32], "depths": [1, 1, 1, 1]},
                experts=ExpertsConfig(blocks=1, hidden=16),
            ),
        }
    )
    return base.model_copy(
        update={
            "name": "tiny",
            "steps": 12,
            "validate_every": 6,
            "validation_clips": 8,
            "data": base.data.model_copy(update={"corpora": corpora, "fe_batch": 6, "au_batch": 4}),
            "model": model,
            "scale": ScaleConfig(workers=1, cpus_per_worker=0.5),
            "checkpoint": CheckpointConfig(every=3),
        }
    )


def published(au: str, fe: str) -> RunConfig:
    """One AU corpus beside one FE corpus as published: CLIP ViT-B/16, 30 epochs, batches of 12 (MAFW 10) and 8.

    DEVIATION: the split is clean unless `--protocol=published` is given; the released code selects on the test list.
    """
    return RunConfig(
        name=f"published-{au}-{fe}",
        epochs=30,
        validate_every=1000,
        validation_clips=_VALIDATED // 2,
        data=DataConfig(corpora=(_corpus(au), _corpus(fe)), fe_batch=10 if fe == "mafw" else 12, decode_workers=4),
        model=_clip_model(Vocabulary(aus=_AUS[au], expressions=_CLASSES[fe]), f"authors_{au}"),
        train=TrainConfig(precision="bfloat16"),
        scale=ScaleConfig(workers=1, gpu=True),
    )


def all_corpora() -> RunConfig:
    """Every corpus at once, each labelling its part of the global vocabularies; rows shared by number of clips."""
    names = (*_AUS, *_CLASSES)
    return RunConfig(
        name="all-corpora",
        epochs=30,
        validate_every=1000,
        validation_clips=_VALIDATED // len(names),
        data=DataConfig(corpora=tuple(_corpus(name) for name in names), decode_workers=4),
        model=_clip_model(Vocabulary.union(_labels(name) for name in names), "emfacs"),
        train=TrainConfig(precision="bfloat16"),
        scale=ScaleConfig(workers=(1, 2), gpu=True),
    )


def au_only(config: RunConfig) -> RunConfig:
    """Baseline: only AU corpora; without the other task there is nothing to map."""
    return _single_task(config, "au")


def fe_only(config: RunConfig) -> RunConfig:
    """Baseline: only expression corpora."""
    return _single_task(config, "fe")


def no_tsp(config: RunConfig) -> RunConfig:
    """Joint training without textual prototypes: shared backbone and two heads."""
    return _with_model(config, text=TextConfig(tower=None), mapping=MappingConfig(enabled=False))


def no_dpm(config: RunConfig) -> RunConfig:
    """Joint training with prototypes that are not mapped on each other."""
    return _with_model(config, mapping=config.model.mapping.model_copy(update={"enabled": False}))


def _learning(directions: str) -> Modifier:
    def modify(config: RunConfig) -> RunConfig:
        return _with_model(config, mapping=config.model.mapping.model_copy(update={"learn": directions}))

    modify.__doc__ = {
        "none": "The mapping stays the prior.",
        "au_to_fe": "One way: AUs inform expressions.",
        "fe_to_au": "One way: expressions inform AUs.",
        "both": "The full method.",
    }[directions]
    return modify


def mal(config: RunConfig) -> RunConfig:
    """Meta auxiliary learning: FE clips weighted so that they help the AU side."""
    return config.model_copy(update={"train": config.train.model_copy(update={"sample_weighting": "mal"})})


def affect() -> RunConfig:
    """Valence and arousal as a third task on two CPU cores: the quickstart beside an Aff-Wild2-like corpus, drawn.

    A step has half as many clips again as the quickstart's. Affect is read from features; `affect+affect_labels` reads
    it from the AU and expression logits, and says why.
    """
    return with_affect(quickstart()).model_copy(update={"name": "affect"})


def with_affect(config: RunConfig) -> RunConfig:
    """The same run with valence and arousal as a third task, on a drawn corpus of its own."""
    root = Path(config.data.corpora[0].root or "runs/corpora/quickstart/bp4d").parent / "affwild2_va"
    size = config.data.corpora[0].synthetic or "quickstart"
    third = CorpusConfig(
        name="affwild2_va", root=str(root), synthetic=size, test_parts=("validation",), augmentation=_SMALL_AU
    )
    data, unit = config.data, math.gcd(config.data.fe_batch, config.data.au_batch) or 8
    changes = {"corpora": (*data.corpora, third), "va_batch": unit}
    vocabulary = config.model.vocabulary.model_copy(update={"affect": AFFECT})
    with_labels = _with_model(config, vocabulary=vocabulary)
    return with_labels.model_copy(update={"data": data.model_copy(update=changes)})


def affect_labels(config: RunConfig) -> RunConfig:
    """Valence and arousal read from the AU and expression logits, so that each AU's part in them is known."""
    return _with_model(config, affect=AffectConfig(head="labels"))


def va_only(config: RunConfig) -> RunConfig:
    """Baseline: only corpora of valence and arousal; a drawn one where the run has none."""
    return _single_task(config if config.data.va_batch else with_affect(config), "va")


def evidential(config: RunConfig) -> RunConfig:
    """AUs as Beta evidence: a calibrated probability, and how little is known of it (docs/methods.md)."""
    kind = "hiva_evidential" if config.model.au_reader.kind == "hiva" else "evidential"
    return _with_model(config, au_reader=config.model.au_reader.model_copy(update={"kind": kind}))


def hiva(config: RunConfig) -> RunConfig:
    """AU nodes that meet their descriptions, five of each AU: what was seen, and where (docs/methods.md)."""
    reader, aus = config.model.au_reader, len(config.model.vocabulary.aus)
    kind = "hiva_evidential" if reader.kind == "evidential" else "hiva"
    graph = reader.graph.model_copy(update={"neighbours": _NEIGHBOURS.get(aus, min(reader.graph.neighbours, aus))})
    text = config.model.text.model_copy(update={"style": "llm"})
    return _with_model(config, au_reader=reader.model_copy(update={"kind": kind, "graph": graph}), text=text)


_NEIGHBOURS = {12: 4, 8: 3}
"""K of the AU graph by the number of AUs, as ME-GraphAU has it for BP4D and DISFA."""


RECIPES: Mapping[str, Recipe] = {
    "quickstart": quickstart,
    "tiny": tiny,
    "affect": affect,
    **{f"published_{au}_{fe}": partial(published, au, fe) for au in _AUS for fe in _CLASSES},
    "all_corpora": all_corpora,
    "real_faces": real_faces,
    "open_faces": open_faces,
}
"""Recipes by the name that `--recipe` takes."""

MODIFIERS: Mapping[str, Modifier] = {
    "au_only": au_only,
    "fe_only": fe_only,
    "va_only": va_only,
    "with_affect": with_affect,
    "affect_labels": affect_labels,
    "no_tsp": no_tsp,
    "no_dpm": no_dpm,
    "fixed_prior": _learning("none"),
    "au_to_fe": _learning("au_to_fe"),
    "fe_to_au": _learning("fe_to_au"),
    "full": _learning("both"),
    "mal": mal,
    "evidential": evidential,
    "hiva": hiva,
    "photographed": photographed,
    "mixed_faces": mixed_faces,
    "taught_aus": taught_aus,
}
"""Baselines and ablations, appended to a recipe by `+`; each adds its name to the run's."""


def recipe(text: str) -> RunConfig:
    """The config of `NAME`, `NAME+MODIFIER+...` or `FILE.json`; `OverrideError` names the nearest known name."""
    if text.endswith(".json"):
        try:
            return RunConfig.model_validate_json(Path(text).read_text())
        except ValidationError as error:
            raise OverrideError(f"{text}: {explain(error)}") from None
        except (OSError, UnicodeDecodeError) as error:
            raise OverrideError(f"{text}: a recipe in a file is JSON that --print-config wrote ({error})") from error
    name, *modifiers = text.split("+")
    config = _named("recipe", name, RECIPES)()
    for modifier in modifiers:
        config = _named("modifier", modifier, MODIFIERS)(config)
        config = config.model_copy(update={"name": f"{config.name}-{modifier}"})
    return RunConfig.model_validate(config.model_dump())  # copies are not checked


def _named(what: str, name: str, table: Mapping[str, Any]) -> Any:
    if name not in table:
        close = difflib.get_close_matches(name, table, n=1, cutoff=0.4)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise OverrideError(f"unknown {what} {name!r}; {hint}known: {', '.join(table)}")
    return table[name]


_SMALL_AU = AU_AUGMENTATION
_SMALL_FE = Augmentation(scale=(0.7, 1.0), ratio=(0.9, 1.1), flip=0.5, brightness=0.2)


def _corpus(name: str, **changes: Any) -> CorpusConfig:
    fields = {
        "name": name,
        "root": f"corpora/{name}",
        "test_parts": _TEST_PARTS[name],
        "augmentation": _FE_AUGMENTATIONS.get(name, AU_AUGMENTATION),
    }
    return CorpusConfig(**{**fields, **changes})


def _labels(name: str) -> Vocabulary:
    return Vocabulary(aus=_AUS.get(name, ()), expressions=_CLASSES.get(name, ()))


def _clip_model(vocabulary: Vocabulary, prior: str) -> ModelConfig:
    return ModelConfig(
        vocabulary=vocabulary,
        backbone=BackboneConfig(name=_CLIP_BACKBONE, pretrained=True),
        text=TextConfig(tower=_CLIP_TEXT),
        mapping=MappingConfig.model_validate({"prior": prior}),
    )


def _small_model(vocabulary: Vocabulary) -> ModelConfig:
    return ModelConfig(
        vocabulary=vocabulary,
        backbone=BackboneConfig(
            name="convnext_atto",
            image_size=64,
            options={"dims": [24, 48, 96, 192], "depths": [1, 1, 3, 1]},
            experts=ExpertsConfig(blocks=2, hidden=64),
        ),
        width=128,
        frames=4,
        text=TextConfig(style="label", contexts=4),
        expression_time=ExpressionTimeConfig(heads=4, head_width=32, hidden=256),
    )


def _from_scratch() -> TrainConfig:
    optim = OptimConfig(visual_encoder=1e-3, experts=1e-3, rest=1e-3, warmup=0.1, milestones=(0.75, 0.92))
    return TrainConfig(optim=optim)


def _single_task(config: RunConfig, task: str) -> RunConfig:
    from ssm_platform.corpora import corpus_named

    kept = tuple(one for one in config.data.corpora if corpus_named(one.reader or one.name).task in (task, None))
    batches = {f"{other}_batch": batch if other == task else 0 for other, batch in config.data.batches.items()}
    data = config.data.model_copy(update={"corpora": kept, **batches})
    return no_dpm(config.model_copy(update={"data": data}))


def _with_model(config: RunConfig, **changes: Any) -> RunConfig:
    return config.model_copy(update={"model": config.model.model_copy(update=changes)})
