"""RAF-DB (Li et al., 2017), basic expressions: still faces with one class each, one official split; each is a clip of
one frame.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ssm.labels import BASIC_EXPRESSIONS, Vocabulary
from ssm_platform.corpora.base import Corpus, ReadOptions, Report
from ssm_platform.corpora.folds import PartLists
from ssm_platform.corpora.sources import image_record
from ssm_platform.corpora.text import cells, data_lines, integer
from ssm_platform.corpora.tree import find_file, find_folder, follow
from ssm_platform.records import Record

CLASSES = dict(enumerate(("surprise", "fear", "disgust", "happiness", "sadness", "anger", "neutral"), start=1))
"""Label -> expression."""

_NAME = "list_pa*tition_label.txt"
_LISTS = (f"EmoLabel/{_NAME}", _NAME, f"basic/EmoLabel/{_NAME}")
_USUAL_LIST = "EmoLabel/list_patition_label.txt"
_PARTS = ("train", "test")


class RAFDBOptions(ReadOptions):
    """RAF-DB has no options of its own."""

    def vocabulary(self, root: Path) -> Vocabulary:
        """The seven basic expressions."""
        return Vocabulary(expressions=BASIC_EXPRESSIONS)


def read(root: Path, options: RAFDBOptions, report: Report) -> Iterator[Record]:
    """All listed images, the owner's aligned faces before the originals."""
    path = find_file(root, *_LISTS) or root / _USUAL_LIST
    images = find_folder(root, "Image", "basic/Image") or path.parent
    lists = PartLists(report)
    for line, text in data_lines(path, _is_row, report):
        report.rows += 1
        name, label, *_ = (*cells(text), "", "")
        expression = CLASSES.get(integer(label) or 0)
        part = next((part for part in _PARTS if name.lower().startswith(part)), None)
        if expression is None or part is None:
            report.problem(path, line, text, "a line is train_... or test_..., and a label 1-7")
        elif lists.admits(name, part, path, line):
            image = _image(images, name)
            if image is None:
                report.problem(path, line, name, "a listed image is there and is not empty")
            else:
                yield image_record(Path(name).stem, image, expression, report, part)


def _is_row(text: str) -> bool:
    return integer(cells(text)[-1]) is not None


def _image(images: Path, name: str) -> Path | None:
    aligned = f"{Path(name).stem}_aligned{Path(name).suffix}"
    places = (follow(images, f"aligned/{aligned}"), follow(images, f"original/{name}"), follow(images, name))
    return next((place for place in places if os.path.isfile(place) and os.path.getsize(place)), None)


CORPUS = Corpus(
    name="rafdb",
    title="RAF-DB, basic",
    task="fe",
    options=RAFDBOptions,
    read=read,
    layout="""\
EmoLabel/list_patition_label.txt         lines "train_00001.jpg 5", labels 1-7
Image/aligned/train_00001_aligned.jpg    or Image/original/train_00001.jpg""",
)
