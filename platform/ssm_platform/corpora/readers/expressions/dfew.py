"""DFEW (Jiang et al., 2020): 11,697 single-labelled clips of films in five official folds, in three deliveries.

The owner's face frames (224 pixels, all frames or 16) are taken as they are where present; the original videos are
the third choice. Clip names are numbers, padded or not.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field

from ssm.labels import BASIC_EXPRESSIONS, Vocabulary
from ssm_platform.corpora.base import Corpus, ReadOptions, Report
from ssm_platform.corpora.folds import Row, folded_records, read_folds
from ssm_platform.corpora.sources import by_number, is_folder, is_video
from ssm_platform.corpora.text import cells, content, integer, portable, read_lines
from ssm_platform.corpora.tree import find_folder, follow
from ssm_platform.records import Record

CLASSES = dict(enumerate(("happiness", "sadness", "neutral", "anger", "surprise", "disgust", "fear"), start=1))
"""Label in the lists -> expression."""

_DELIVERIES = {
    "frames": ("Clip*/clip_224x224", "clip_224x224"),
    "frames16": ("Clip*/clip_224x224_16f", "clip_224x224_16f"),
    "original": ("Clip*/original", "original"),
}
_SPLITS = ("EmoLabel*/{side}(single*label*)", "{side}(single*label*)", "EmoLabel*/{side}")
_USUAL_SPLIT = "EmoLabel_DataSplit/{side}(single-labeled)"


class DFEWOptions(ReadOptions):
    """DFEW: which delivery."""

    delivery: Literal["auto", "frames", "frames16", "original"] = Field(
        default="auto", description="clip_224x224, clip_224x224_16f, Clip/original, or the first of these that is there"
    )

    def vocabulary(self, root: Path) -> Vocabulary:
        """The seven basic expressions."""
        return Vocabulary(expressions=BASIC_EXPRESSIONS)


def _parse(path: Path, report: Report) -> Iterator[Row]:
    """Lines "video_name,label" below a header, names unpadded or not, with or without suffix; labels 1-7."""
    first = True
    for line, text in content(read_lines(path, report)):
        name, label, *_ = (*cells(text), "")
        number = integer(PurePosixPath(portable(name)).stem)
        if number is None and first:
            first = False
            continue
        first, expression = False, CLASSES.get(integer(label) or 0)
        if number is None or expression is None:
            report.problem(path, line, text, "a line is a clip's number and a label 1-7")
        if number is not None:
            yield line, f"{number:05d}", expression


def _clips(root: Path, delivery: str) -> tuple[Path, dict[int, Path]]:
    """The delivery's folder and its clips by number: folders of frames or videos."""
    names = _DELIVERIES if delivery == "auto" else {delivery: _DELIVERIES[delivery]}
    for name, places in names.items():
        folder = find_folder(root, *places)
        if folder is not None:
            return folder, by_number(folder, is_video if name == "original" else is_folder)
    return root / next(iter(names.values()))[1], {}


def read(root: Path, options: DFEWOptions, report: Report) -> Iterator[Record]:
    """All single-labelled clips, with the fold in which each is test."""
    found = {side: find_folder(root, *(place.format(side=side) for place in _SPLITS)) for side in ("train", "test")}
    folders = {side: folder or root / _USUAL_SPLIT.format(side=side) for side, folder in found.items()}
    names = {str(k): f"set_{k}.csv" for k in range(1, 6)}
    lists = {fold: (follow(folders["train"], name), follow(folders["test"], name)) for fold, name in names.items()}
    folder, clips = _clips(root, options.delivery)
    return folded_records(read_folds(lists, _parse, report), folder, clips, report)


CORPUS = Corpus(
    name="dfew",
    title="DFEW",
    task="fe",
    options=DFEWOptions,
    read=read,
    counts=dict(zip(CLASSES.values(), (2445, 1894, 2669, 2173, 1469, 145, 902), strict=True)),
    layout="""\
EmoLabel_DataSplit/train(single-labeled)/set_1.csv   set_1..set_5, and test(single-labeled): "video_name,label"
Clip/clip_224x224/00001/*.jpg                        or Clip/clip_224x224_16f/00001/1.jpg, or Clip/original/1.mp4""",
)
