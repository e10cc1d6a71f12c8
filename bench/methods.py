"""What AU readers add, on drawn faces: calibration, doubt, places, few people, wrong labels (docs/methods.md).

    python bench/study.py --out runs/methods --variants full evidential hiva hiva+evidential cvae_evidential \\
        --seeds 1 2 3 --unseen --steps=400
    python bench/methods.py calibration --steps=400    # of those runs, on people whom no run has seen
    python bench/methods.py answers --steps=400        # of those, u and errors of answers "present" and "absent"
    python bench/methods.py doubt --steps=400          # u and variance against blur and occlusion
    python bench/methods.py where --steps=400          # heat-map mass in the region that an AU moves
    python bench/methods.py texts --steps=400          # AU AUC where AUs are read with another AU's descriptions
    python bench/methods.py few --steps=400 --variants full hiva --people 1 3  # trains on so many of the people too
    python bench/methods.py wrong --steps=400 --variants full evidential       # on 20 and 40 % of AU labels wrong too

Each prints one Markdown table. The fields are the study's. `few` and `wrong` train like bench/study.py does, a study of
its own beside those runs for every share, so they go on where they were cut off. The region of an AU is where a drawn
face changes when it alone is switched on.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from study import METHODS, Study

from ssm import SSM
from ssm.inference import Predictor
from ssm.interface import normalise
from ssm.metrics import (
    AUTable,
    au_risk,
    au_risk_by_doubt,
    au_temperature,
    calibration_error,
    cooled_aus,
    macro,
)
from ssm.metrics.risk import RiskCoverage, risk_coverage
from ssm.model import Evidence
from ssm.model.readers import AUInputs
from ssm_platform.base.machine import describe_machine
from ssm_platform.evaluate.prediction_files import from_parquet
from ssm_platform.records.manifest import Manifest
from ssm_platform.runs.preparation import prepare
from ssm_platform.synthetic.face.muscles import AU_ORDER
from ssm_platform.synthetic.performance import Performance, person, stream, wild_performance

READERS = ("full", *METHODS)
BLURS, COVERED = (0.0, 0.5, 1.0, 2.0, 4.0), (0.0, 0.15, 0.3, 0.5, 0.7)
FACES, SHOWN = 24, 300
_CHANGED = 6  # grey levels by which a pixel of an AU's region changes at least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--out", type=Path, default=Path("runs/methods"), help="folder of the study's runs")
    parser.add_argument("--recipe", default="quickstart")
    parser.add_argument("--variants", nargs="+", default=list(READERS), choices=READERS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[1, 2, 3])
    parser.add_argument("--people", nargs="+", type=int, default=[1, 3], help="of `few`, besides all")
    options, fields = parser.parse_known_args()
    print(f"<!-- python {' '.join(sys.argv)} -->\n\nMachine: {describe_machine()}\n")
    for line in TABLES[options.table](options, tuple(fields)):
        print(line, flush=True)


def calibration(options: argparse.Namespace, fields: tuple[str, ...]) -> Iterator[str]:
    """ECE as served, before the asymmetry was undone, after a temperature; areas under risk and coverage."""
    names = ("ECE", "before un-tilt", "after temperature", "risk by probability", "risk by doubt", "wrong of all")
    names += ("of the surest 80 %", "of the least doubted 80 %")
    yield f"| variant | seeds | {' | '.join(names)} |"
    yield f"|---|---|{'---|' * len(names)}"
    for variant, folders in _finished(options, fields):
        rows = [row for folder in folders if (row := _calibrated(folder))]
        cells = [_spread([row[column] for row in rows if row[column] is not None]) for column in range(len(names))]
        yield f"| {variant} | {len(rows)} | {' | '.join(cells)} |"


def _calibrated(folder: Path) -> list[float | None]:
    """The figures of one run, means over its AU corpora, on unseen people."""
    found: list[list[float | None]] = []
    for path, table in _unseen_aus(folder):
        fitted = from_parquet(path.with_name(path.name.replace(".unseen.", ".validation.")).read_bytes())
        temperature = au_temperature([fitted]) if isinstance(fitted, AUTable) else None
        by_probability, by_doubt, tilted = au_risk(table), au_risk_by_doubt(table), table.tilted
        found.append([
            _error(table),
            None if tilted is None else _error(replace(table, probabilities=tilted)),
            None if temperature is None else _error(cooled_aus(table, temperature)),
            by_probability.area,
            None if by_doubt is None else by_doubt.area,
            _wrong(by_probability, 1.0),
            _wrong(by_probability, 0.8),
            None if by_doubt is None else _wrong(by_doubt, 0.8),
        ])  # fmt: skip
    return [_mean(column) for column in zip(*found, strict=True)]


def _wrong(risk: RiskCoverage, share: float) -> float:
    """Share of wrong answers among the best `share` of them."""
    return float(risk.risk[list(risk.coverage).index(share)])


def _error(table: AUTable) -> float:
    return float(macro(calibration_error(table)))


def answers(options: argparse.Namespace, fields: tuple[str, ...]) -> Iterator[str]:
    """Mean u, and the share of wrong answers among all and among the fifth that u doubts least, by what is answered."""
    yield "| variant | answer | share | mean u | wrong | of its least doubted fifth |\n|---|---|---|---|---|---|"
    for variant, folders in _finished(options, fields):
        tables = [table for folder in folders for _, table in _unseen_aus(folder) if table.doubts is not None]
        for answer in ("present", "absent") if tables else ():
            rows = [_answered(table, answer == "present") for table in tables]
            yield f"| {variant} | {answer} | {' | '.join(_spread(column) for column in zip(*rows, strict=True))} |"


def _answered(table: AUTable, present: bool) -> tuple[float, float, float, float]:
    assert table.doubts is not None
    known = table.labels >= 0
    answer, labels, doubts = table.probabilities[known] >= 0.5, table.labels[known] > 0, table.doubts[known]
    of = answer == present
    wrong = (answer != labels)[of]
    risk = risk_coverage(1 - doubts[of], wrong)
    return float(of.mean()), float(doubts[of].mean()), _wrong(risk, 1.0), _wrong(risk, 0.2)


def _unseen_aus(folder: Path) -> list[tuple[Path, AUTable]]:
    """A run's answers on each AU corpus of unseen people, and their files."""
    paths = sorted((folder / "predictions").glob("*.unseen.parquet"))
    return [(path, table) for path in paths if isinstance(table := from_parquet(path.read_bytes()), AUTable)]


def doubt(options: argparse.Namespace, fields: tuple[str, ...]) -> Iterator[str]:
    """Mean u at each strength, and its rank correlation with the strength over all answers."""
    yield "| variant | spoilt by | what | " + " | ".join(f"step {n}" for n in range(5)) + " | rank correlation |"
    yield "|---|---|---|" + "---|" * 6
    for variant, folders in _finished(options, fields):
        for name, spoil, strengths in (("blur", blurred, BLURS), ("occlusion", covered, COVERED)):
            by_seed = [_doubts(SSM.from_pretrained(folder / "model"), spoil, strengths) for folder in folders]
            for what in sorted({what for found in by_seed for what in found}):
                values = np.stack([found[what] for found in by_seed])  # seeds, strengths, answers
                grades = np.broadcast_to(np.arange(len(strengths))[:, None], values.shape[1:])
                ranks = [float(spearmanr(grades.ravel(), one.ravel()).statistic) for one in values]
                means = " | ".join(f"{value:.3f}" for value in values.mean((0, 2)))
                yield f"| {variant} | {name} | {what} | {means} | {_spread(ranks)} |"


@torch.inference_mode()
def _doubts(model: SSM, spoil: Callable[..., Any], strengths: Sequence[float]) -> dict[str, NDArray[np.float64]]:
    """u, and the variance of the representation, of faces at each strength: (strengths, answers)."""
    found: dict[str, list[NDArray[np.float64]]] = {}
    if not model.au_head.gives_evidence:
        return {}
    assert model.facts.preprocessing is not None
    for strength in strengths:
        clips = np.stack([spoil(np.stack(list(played.frames())), strength) for played in _performances(model)])
        output = model(au_clips=normalise(torch.from_numpy(clips), model.facts.preprocessing))
        doubts = Evidence.of(output.au_evidence).doubt(model.config.au_reader.focus)
        found.setdefault("u", []).append(doubts.double().numpy().ravel())
        if output.au_variance is not None:
            found.setdefault("variance", []).append(output.au_variance.double().numpy().ravel())
    return {what: np.stack(values) for what, values in found.items()}


def blurred(frames: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    """As a lens out of focus."""
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames]) if sigma else frames


def covered(frames: NDArray[np.uint8], share: float) -> NDArray[np.uint8]:
    """A grey sheet over the lower part."""
    hidden = frames.copy()
    hidden[:, round(frames.shape[1] * (1 - share)) :] = 128
    return hidden


def where(options: argparse.Namespace, fields: tuple[str, ...]) -> Iterator[str]:
    """Mass of an AU's heat map in its own region, of the other AUs' maps there, and the region's share of the face."""
    yield "| variant | AU | in its region | other AUs' maps there | share of the picture |\n|---|---|---|---|---|"
    for variant, folders in _finished(options, fields):
        models = [SSM.from_pretrained(folder / "model") for folder in folders]
        if not models or not models[0].au_head.needs_texts:
            continue
        aus = models[0].vocabulary.aus
        masses = np.stack([_masses(model) for model in models])  # seeds, AUs, 3
        for place, au in enumerate(aus):
            yield f"| {variant} | {au} | {' | '.join(_spread(list(masses[:, place, kind])) for kind in range(3))} |"
        total = [_spread(list(np.nanmean(masses[:, :, kind], 1))) for kind in range(3)]
        yield f"| {variant} | all | {' | '.join(total)} |"


def _masses(model: SSM) -> NDArray[np.float64]:
    """(A, 3): own mass, others' mass, and the region's share, means over faces; nan where an AU moves nothing."""
    assert model.facts.preprocessing is not None
    predictor, aus = Predictor(model, model.facts.preprocessing), model.vocabulary.aus
    found = np.full((len(aus), FACES, 3), np.nan)
    for face in range(FACES):
        still = _performed(model, face, {})
        for place, au in enumerate(aus):
            shown = _performed(model, face, {au: 4.0})
            region = np.abs(shown.astype(int) - still).max(-1).mean(0) > _CHANGED
            heat = predictor.where(shown[None])[0].mean(0)  # A h w
            if not region.any():
                continue
            size = region.shape[::-1]
            maps = np.stack([cv2.resize(one, size, interpolation=cv2.INTER_NEAREST) for one in heat])
            inside = maps[:, region].sum(1) / maps.sum((1, 2))
            found[place, face] = inside[place], np.delete(inside, place).mean(), region.mean()
    return np.asarray(np.nanmean(found, 1))


def texts(options: argparse.Namespace, fields: tuple[str, ...]) -> Iterator[str]:
    """Mean AUC over AUs of drawn faces, read with each AU's own texts and with those of the AU after it."""
    yield "| variant | seeds | own texts | the next AU's texts | lost |\n|---|---|---|---|---|"
    for variant, folders in _finished(options, fields):
        models = [SSM.from_pretrained(folder / "model") for folder in folders]
        own, other = [_area(model) for model in models], []
        for model in models:
            model.au_head.register_forward_pre_hook(_next_texts)
            other.append(_area(model))
        lost = [one - two for one, two in zip(own, other, strict=True)]
        yield f"| {variant} | {len(models)} | {_spread(own)} | {_spread(other)} | {_spread(lost)} |"


def _next_texts(reader: Any, inputs: tuple[AUInputs, ...]) -> tuple[AUInputs, ...]:
    """The same with every AU's texts moved one AU on."""
    texts = inputs[0].texts
    assert texts is not None
    each = None if texts.each is None else texts.each.roll(-1, 0)
    return (replace(inputs[0], texts=replace(texts, fused=texts.fused.roll(-1, 0), each=each)),)


@torch.inference_mode()
def _area(model: SSM) -> float:
    """Mean ROC-AUC over AUs, of which `SHOWN` faces show each or not."""
    assert model.facts.preprocessing is not None
    faces = list(_performances(model, SHOWN))
    clips = torch.from_numpy(np.stack([np.stack(list(face.frames())) for face in faces]))
    parts = [normalise(part, model.facts.preprocessing) for part in clips.split(50)]
    logits = np.concatenate([model(au_clips=part).au_logits.mean(1).numpy() for part in parts])
    shown = np.stack([face.intensity[0, [AU_ORDER.index(au) for au in model.vocabulary.aus]] > 0 for face in faces])
    return float(np.mean([roc_auc_score(labels, scores) for labels, scores in zip(shown.T, logits.T, strict=True)]))


def _performances(model: SSM, count: int = FACES) -> Iterator[Performance]:
    """Faces that show a few AUs, without any nuisance."""
    for number in range(count):
        rng = stream(7, "methods", number)
        peaks = np.where(rng.random(len(AU_ORDER)) < 0.3, 4.0, 0.0)
        yield _performance(model, number, peaks)


def _performed(model: SSM, face: int, shown: Mapping[int, float]) -> NDArray[np.uint8]:
    """Frames (T, S, S, 3) of one face and pose that shows these AUs, and no others."""
    peaks = np.array([shown.get(au, 0.0) for au in AU_ORDER])
    return np.stack(list(_performance(model, face, peaks).frames()))


def _performance(model: SSM, face: int, peaks: NDArray[np.float64]) -> Performance:
    intensity = np.repeat(peaks[None].astype(np.float32), model.config.frames, 0)
    size = model.config.backbone.image_size
    return wild_performance(person(7, "methods", face), stream(7, "pose", face), intensity, 25.0, 0.0, size)


def few(options: argparse.Namespace, fields: tuple[str, ...]) -> Iterator[str]:
    """Macro F1 and AUC when only some people of each AU corpus are trained on."""
    changes = {f"{count}": _some_people(count) for count in options.people}
    yield from _trained_on(options, fields, "people", {**changes, "all": None})


def wrong(options: argparse.Namespace, fields: tuple[str, ...]) -> Iterator[str]:
    """The same, and mean u, where a share of the AU labels of the training people is turned round."""
    changes = {f"{share:.0%}": _turned(share) for share in (0.2, 0.4)}
    yield from _trained_on(options, fields, "wrong labels", {"0%": None, **changes})


Change = Callable[[Manifest, NDArray[np.bool_]], Manifest]
"""A corpus's manifest, and which of its records are trained on, to another manifest."""


def _some_people(count: int) -> Change:
    def change(manifest: Manifest, trained: NDArray[np.bool_]) -> Manifest:
        subjects = np.array(manifest.column("subject").to_pylist())
        people = sorted(set(subjects[trained]), key=lambda who: stream(3, who).random())
        return manifest.filter(~trained | np.isin(subjects, people[:count]))

    return change


def _turned(share: float) -> Change:
    def change(manifest: Manifest, trained: NDArray[np.bool_]) -> Manifest:
        records = []
        for record, is_trained in zip(manifest, trained, strict=True):
            if is_trained and record.au_labels is not None:
                turn = (stream(4, record.clip).random(record.au_labels.shape) < share) & (record.au_labels >= 0)
                record = replace(
                    record, au_labels=np.where(turn, 1 - record.au_labels, record.au_labels).astype(np.int8)
                )
            records.append(record)
        return Manifest.build(manifest.root, manifest.corpus, manifest.task, manifest.labels, records)

    return change


def _trained_on(
    options: argparse.Namespace, fields: tuple[str, ...], what: str, changes: Mapping[str, Change | None]
) -> Iterator[str]:
    """Rows of each change; where nothing is changed, of the study's own runs."""
    yield f"| {what} | variant | seeds | macro F1 | AU AUC | mean u |\n|---|---|---|---|---|---|"
    for name, change in changes.items():
        out = options.out / f"{options.table}-{name.removesuffix('%')}" if change else options.out
        places = _changed(Study(out.absolute(), options.recipe, fields), change) if change else []
        command = [sys.executable, str(Path(__file__).with_name("study.py")), "--out", str(out), "--recipe"]
        command += [options.recipe, "--variants", *options.variants, "--seeds", *map(str, options.seeds)]
        subprocess.run([*command, *fields, *places], check=True, stdout=subprocess.DEVNULL)
        asked = argparse.Namespace(**{**vars(options), "out": out})
        for variant, folders in _finished(asked, (*fields, *places)):
            yield f"| {name} | {variant} | {len(folders)} | {' | '.join(_figures(folders))} |"


def _changed(study: Study, change: Change) -> list[str]:
    """Fields by which a run reads changed manifests of its AU corpora; they are written once."""
    config = study.config("full", 1)
    prepared, fields = prepare(config), []
    for corpus in config.data.corpora:
        split = prepared.splits[corpus.name]
        if split.train.task != "au":
            continue
        path = study.out / f"{corpus.name}.parquet"
        whole = [split.train, split.validation, split.test]
        records = [record for side in whole for record in side]
        first = split.train
        manifest = Manifest.build(first.root, corpus.name, first.task, first.labels, records)
        path.parent.mkdir(parents=True, exist_ok=True)
        change(manifest, np.arange(len(records)) < len(first)).write(path)
        fields += [f"--data.corpora.{corpus.name}.manifest={path}"]
        fields += [f"--data.corpora.{corpus.name}.{name}=null" for name in ("root", "synthetic")]
    return fields


def _figures(folders: Sequence[Path]) -> list[str]:
    """Macro F1, AUC and mean u on the test side, each a mean over seeds."""
    from ssm_platform.evaluate.scores import Evaluation

    found = [Evaluation.read(folder / "evaluation.json") for folder in folders]
    doubts = [
        float(table.doubts.mean())
        for folder in folders
        for path in (folder / "predictions").glob("*.test.parquet")
        if isinstance(table := from_parquet(path.read_bytes()), AUTable) and table.doubts is not None
    ]
    figures = [[one.macro_f1 for one in found], [_mean([s.mean_auc.value for s in one.au]) for one in found], doubts]
    return [_spread([value for value in values if value is not None]) for values in figures]


def _finished(options: argparse.Namespace, fields: tuple[str, ...]) -> Iterator[tuple[str, list[Path]]]:
    study = Study(options.out.absolute(), options.recipe, fields)
    for variant in options.variants:
        folders = [study.folder(*one) for one in study.finished([(variant, seed) for seed in options.seeds])]
        if folders:
            yield variant, folders


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _spread(values: Sequence[float]) -> str:
    """Mean and spread over seeds."""
    if not values:
        return ""
    return f"{np.mean(values):.3f} ± {np.std(values, ddof=1) if len(values) > 1 else 0:.3f}"


TABLES: Mapping[str, Callable[[argparse.Namespace, tuple[str, ...]], Iterator[str]]] = {
    one.__name__: one for one in (calibration, answers, doubt, where, texts, few, wrong)
}

if __name__ == "__main__":
    main()
