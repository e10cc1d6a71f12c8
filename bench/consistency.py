"""What models say of real faces: expressions, and whether their AUs agree with FACS, on a corpus of labelled faces.

    python bench/consistency.py --root corpora/fer2013 MODEL... [--reader fer2013] [--part PrivateTest] [--clips N]
        [--links emfacs] [--json FILE]

MODEL is a folder of a saved model. For each: accuracy and UAR over all images, over those that are there once (copies
may have been trained on), and per group of people where the corpus's owner tells any; then, for every AU that FACS
links to an expression, the ROC-AUC of its probability, images of linked expressions against all others, with 95 %
intervals over images; and how far the learned map has gone from its prior. FACS consistency is not AU accuracy: see
`ssm.metrics.consistency`.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ssm import SSM
from ssm.interface.preprocessing import Preprocessing, normalise
from ssm.labels.priors import TABLES, links
from ssm.metrics.consistency import facs_consistency
from ssm.metrics.figures import expression_figures
from ssm.metrics.predictions import ExpressionPredictions
from ssm_platform.corpora.registry import corpus_named, read_corpus
from ssm_platform.data.clips import ClipConfig, ClipReader, to_batches
from ssm_platform.data.plan import evaluation_rows
from ssm_platform.records.manifest import Manifest
from ssm_platform.train.validation import spread

BATCH = 64


@dataclass(frozen=True)
class Said:
    """One model's answers to N images."""

    aus: NDArray[np.float32]  # N A
    expressions: NDArray[np.float32]  # N E, of the corpus's classes
    records: NDArray[np.int64]  # N
    map_moved: float  # mean absolute change of the map AU->FE from its prior, nan without a map


def answers(folder: Path, manifest: Manifest, clips: int | None) -> tuple[SSM, Said]:
    """What the model in `folder` says of the images of `manifest` (`clips` of them, evenly spread)."""
    model = SSM.from_pretrained(folder).fold()
    preprocessing = Preprocessing.model_validate(model.facts.preprocessing)
    reader = ClipReader(
        [manifest], model.vocabulary, ClipConfig(frames=model.config.frames, preprocessing=preprocessing)
    )
    rows = spread(evaluation_rows([manifest], model.config.frames), clips)
    columns = model.vocabulary.expression_columns(manifest.labels.expressions)
    with torch.inference_mode():
        found = [
            _pass(model, reader.read(rows[first : first + BATCH].columns()), preprocessing, columns)
            for first in range(0, len(rows), BATCH)
        ]
    aus, expressions = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return model, Said(aus, expressions, rows.record.astype(np.int64), _moved(model))


def _pass(model: SSM, columns: Any, preprocessing: Preprocessing, classes: list[int]) -> tuple[Any, Any]:
    fe, *_ = to_batches(columns)
    assert fe is not None
    features = model.encode_clips(normalise(fe.clips, preprocessing), fe.distinct)
    prototypes = model.prototypes()
    aus = model.read_aus(features, prototypes).logits.sigmoid().mean(1)
    return aus.numpy(), model.read_expression(features.pooled, prototypes)[0][:, classes].softmax(1).numpy()


def _moved(model: SSM) -> float:
    with torch.inference_mode():
        maps = model.maps()
    if maps is None or model.mapping is None:
        return math.nan
    return float((maps.au_to_fe - model.mapping.prior).abs().mean())


def expressions(said: Said, manifest: Manifest, once: bool) -> tuple[float, float, int]:
    """Accuracy, UAR and images; `once`: only of images without a copy."""
    gathered = ExpressionPredictions(manifest.labels.expressions)
    for place, index in enumerate(said.records.tolist()):
        record = manifest[index]
        if not once or not (record.subject or "").startswith("image "):
            label = int(manifest.expression_columns[index])
            gathered.update(record.clip, None, said.expressions[place] / said.expressions[place].sum(), label)
    figures = expression_figures(gathered.table())
    return float(figures.war.value), float(figures.uar.value), figures.clips


def by_group(said: Said, manifest: Manifest, people: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Accuracy, UAR and clips of each group that the corpus's owner tells apart; ages by decade."""
    members: dict[str, set[str]] = {}
    for subject, facts in people.items():
        for name, value in facts.items():
            shown = f"{int(value) // 10 * 10}s" if name == "Age" and value.isdecimal() else value
            members.setdefault(f"{name} {shown}", set()).add(subject)
    subjects = manifest.column("subject").to_pylist()
    found = {}
    for group, who in sorted(members.items()):
        rows = np.flatnonzero([subjects[index] in who for index in said.records.tolist()])
        if len(rows):
            part = Said(said.aus[rows], said.expressions[rows], said.records[rows], said.map_moved)
            found[group] = expressions(part, manifest, once=False)
    return found


def report(folder: Path, manifest: Manifest, clips: int | None, table: str, people: Any) -> dict[str, Any]:
    """All figures of one model, printed and as plain values."""
    model, said = answers(folder, manifest, clips)
    whole, once = (expressions(said, manifest, one) for one in (False, True))
    groups = by_group(said, manifest, people)
    print(f"\n{folder}: {whole[2]} images, accuracy {whole[0]:.3f}, UAR {whole[1]:.3f}")
    print(f"  without images that are there twice: {once[2]} images, accuracy {once[0]:.3f}, UAR {once[1]:.3f}")
    for group, figures in groups.items():
        print(f"  {group}: {figures[2]} clips, accuracy {figures[0]:.3f}, UAR {figures[1]:.3f}")
    print(f"  map AU->FE: mean change from its prior {said.map_moved:.4f}")
    labels = manifest.expression_columns[said.records]
    rows = facs_consistency(
        said.aus, labels, model.vocabulary.aus, manifest.labels.expressions, links(table, manifest.labels)
    )
    for row in rows:
        print(f"  {_line(row.au, row.linked, row.auc, row.low, row.high, row.images)}")
    figures = {"accuracy": whole[0], "uar": whole[1], "images": whole[2]}
    once_figures = {"accuracy_once": once[0], "uar_once": once[1]}
    consistency = [asdict(row) for row in rows]
    return {"model": str(folder), **figures, **once_figures, "groups": groups, "map_moved": said.map_moved,
            "consistency": consistency}  # fmt: skip


def _line(au: int, linked: tuple[str, ...], auc: float, low: float, high: float, images: int) -> str:
    return f"AU{au:02d} {auc:.3f} [{low:.3f}, {high:.3f}]  {', '.join(linked)} ({images})"


def manifest_of(arguments: argparse.Namespace) -> Manifest:
    """The part of the corpus that is judged."""
    manifest = read_corpus(arguments.reader, arguments.root).manifest
    codes, parts = manifest.codes("part")
    if arguments.part is None:
        return manifest
    if arguments.part not in parts:
        raise SystemExit(f"error: part {arguments.part!r} is not one of {', '.join(parts) or 'none'}")
    return manifest.filter(codes == parts.index(arguments.part))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--root", required=True, help="the corpus's folder")
    parser.add_argument("--reader", default="fer2013")
    parser.add_argument("--part", default=None, help="the owner's part, for example PrivateTest; unset: everything")
    parser.add_argument("--clips", type=int, default=None, help="at most so many images, evenly spread")
    parser.add_argument("--links", default="emfacs", choices=sorted(TABLES))
    parser.add_argument("--json", type=Path, default=None)
    return parser.parse_args()


def main() -> None:
    known = arguments()
    manifest = manifest_of(known)
    people = corpus_named(known.reader).people
    groups = {} if people is None else people(Path(known.root))
    found = [report(model, manifest, known.clips, known.links, groups) for model in known.models]
    if known.json:
        known.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
