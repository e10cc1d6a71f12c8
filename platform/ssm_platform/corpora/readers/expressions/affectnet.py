"""AffectNet (Mollahosseini et al., 2017): still faces with one class each; each is a clip of one frame.

Read are the release with a label file per image (``annotations/0_exp.npy``) and the one with csv lists
(``subDirectory_filePath``, ``expression``). Classes 8 and above ("none", "uncertain", "no face") have no expression
and are counted. With option `affect` valence and arousal are read too (columns, or ``0_val.npy`` and ``0_aro.npy``); -2
marks an image without them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tokenize import TokenError

import numpy as np
from pydantic import Field

from ssm.labels import AFFECT, EXPRESSIONS, Vocabulary
from ssm_platform.corpora.affect import UNLABELLED, AffectCoding
from ssm_platform.corpora.base import Corpus, ReadOptions, Report
from ssm_platform.corpora.folds import PartLists
from ssm_platform.corpora.sources import image_record
from ssm_platform.corpora.text import integer, portable, read_csv
from ssm_platform.corpora.tree import find_all, find_file, find_folder, fold, follow
from ssm_platform.records import Record

CLASSES = dict(enumerate(("neutral", "happiness", "sadness", "surprise", "fear", "disgust", "anger", "contempt")))
"""Label -> expression."""

_NO_EXPRESSION = (8, 9, 10)
_AFFECT, _AFFECT_FILES = AffectCoding(missing=(-2.0,)), ("val", "aro")
_LONGEST = 1000  # of the header of a label file, in bytes; usual are 118
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_SETS = {"train": ("train_set", "training.csv"), "validation": ("val_set", "validation.csv")}
_CSV_FOLDERS = ("Manually_Annotated_file_lists", "Manually_Annotated/Manually_Annotated_file_lists", ".")
_IMAGE_FOLDERS = ("Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images")


class AffectNetOptions(ReadOptions):
    """AffectNet: whether valence and arousal are read beside the class."""

    affect: bool = Field(default=False, description="read valence and arousal as well")

    def vocabulary(self, root: Path) -> Vocabulary:
        """The seven basic expressions and contempt, and affect where it is asked for."""
        return Vocabulary(expressions=EXPRESSIONS[:8], affect=AFFECT if self.affect else ())


def read(root: Path, options: AffectNetOptions, report: Report) -> Iterator[Record]:
    """All labelled images; parts "train" and "validation"."""
    lists = PartLists(report)
    for part, (folder, name) in _SETS.items():
        annotated = find_folder(root, folder)
        if annotated is not None:
            yield from _read_annotations(annotated, part, options, report)
        path = find_file(root, *(f"{place}/{name}" for place in _CSV_FOLDERS))
        if path is not None:
            yield from _read_csv(root, path, part, lists, options, report)


def _read_annotations(folder: Path, part: str, options: AffectNetOptions, report: Report) -> Iterator[Record]:
    """``annotations/0_exp.npy`` beside ``images/0.jpg``."""
    for path in find_all(folder, "annotations/*_exp.npy"):
        report.rows += 1
        name = path.name[: -len("_exp.npy")]
        expression = _expression(_label(path), path, None, report)
        if expression is not None:
            image = follow(folder, f"images/{name}.jpg")
            found = _record(f"{part}/{name}", image, expression, part, path, None, report)
            cells = [_label(path.with_name(f"{name}_{end}.npy")) for end in _AFFECT_FILES] if options.affect else None
            yield from _with_affect(found, cells, path, None, report)


def _label(path: Path) -> str:
    """The content of a label file as text; what is no array of one number is none, whatever its header promises."""
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version not in _HEADERS:
                return f"version {version} of npy"
            shape, _, kind = _HEADERS[version](file, _LONGEST)
            if any(length != 1 for length in shape):
                return f"{math.prod(shape)} numbers"
            return str(np.frombuffer(file.read(kind.itemsize), kind, count=1).item())
    except (ValueError, OSError, SyntaxError, TokenError, TypeError, LookupError, RecursionError) as error:
        return str(error)


def _read_csv(
    root: Path, path: Path, part: str, lists: PartLists, options: AffectNetOptions, report: Report
) -> Iterator[Record]:
    images = find_folder(root, *_IMAGE_FOLDERS) or root
    rows = read_csv(path, report)
    _, header = next(rows, (1, []))
    for line, cells in rows:
        report.rows += 1
        row = dict(zip(map(fold, header), cells, strict=False))
        name = portable(row.get("subdirectory_filepath", ""))
        expression = _expression(row.get("expression", ""), path, line, report)
        if expression is not None and lists.admits(name, part, path, line):
            found = _record(name, follow(images, name), expression, part, path, line, report)
            affect = [row.get(dimension, "none") for dimension in AFFECT] if options.affect else None
            yield from _with_affect(found, affect, path, line, report)


def _with_affect(
    records: Iterator[Record], cells: list[str] | None, path: Path, line: int | None, report: Report
) -> Iterator[Record]:
    """The records of one image with its valence and arousal, where ``cells`` hold them."""
    for record in records:
        if cells is None:
            yield record
            continue
        pair = _AFFECT.pair(cells)
        if pair is None:
            report.problem(path, line, ", ".join(cells), _AFFECT.rule)
        yield replace(record, va_labels=np.array([pair or UNLABELLED], np.float32))


def _expression(text: str, path: Path, line: int | None, report: Report) -> str | None:
    value = integer(text)
    if value in _NO_EXPRESSION:
        report.note(path, line, text, "classes 8-10 name no expression; left out")
    elif value not in CLASSES:
        report.problem(path, line, text, "a label is 0-10")
    return None if value is None else CLASSES.get(value)


def _record(
    clip: str, image: Path, expression: str, part: str, path: Path, line: int | None, report: Report
) -> Iterator[Record]:
    if os.path.isfile(image) and os.path.getsize(image):
        yield image_record(clip, image, expression, report, part)
    else:
        report.problem(path, line, image.name, "a listed image is there and is not empty")


CORPUS = Corpus(
    name="affectnet",
    title="AffectNet",
    task="fe",
    options=AffectNetOptions,
    read=read,
    layout="""\
train_set/images/0.jpg, train_set/annotations/0_exp.npy     and val_set
Manually_Annotated_file_lists/training.csv                  or csv lists, with Manually_Annotated_Images/""",
)
