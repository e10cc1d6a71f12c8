"""MAFW (Liu et al., 2022): clips of films and shows with eleven single classes, five official sets.

The set lists are read as shipped: ``no_caption`` ("00025.mp4 anger"), else ``with_caption`` (GBK, tab separated).
Compound classes ("anger_disgust") have no single label here and are noted. Face frames made from the clips are
preferred to the videos.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

from pydantic import Field

from ssm.labels import EXPRESSIONS, Vocabulary
from ssm_platform.corpora.base import Corpus, ReadOptions, Report
from ssm_platform.corpora.folds import Row, folded_records, read_folds
from ssm_platform.corpora.sources import by_number, is_folder, is_video
from ssm_platform.corpora.text import cells, content, expression_of, portable, read_lines
from ssm_platform.corpora.tree import find_folder, follow
from ssm_platform.records import Record

CLASSES = {name: name for name in EXPRESSIONS}

_FRAMES = ("data/frames", "data/clips_faces", "data/faces", "frames", "data/clips")
_VIDEOS = ("data/clips", "clips")
_LISTS = ("Train*Test*Set*/single/no_caption", "Train*Test*Set*/single/with_caption")
_USUAL_LISTS = "Train & Test Set/single/no_caption"


class MAFWOptions(ReadOptions):
    """MAFW: which delivery."""

    delivery: Literal["auto", "frames", "original"] = Field(
        default="auto", description="folders of frames, data/clips/*.mp4, or the first of these that is there"
    )

    def vocabulary(self, root: Path) -> Vocabulary:
        """The eleven single classes."""
        return Vocabulary(expressions=EXPRESSIONS)


def _parse(path: Path, report: Report) -> Iterator[Row]:
    """Lines "00025.mp4 anger" or, tab separated, clip, class and two captions."""
    for line, text in content(read_lines(path, report)):
        name, *rest = cells(text)
        stem = PurePosixPath(portable(name)).stem
        if not stem.isdecimal() or not rest:
            report.problem(path, line, text, "a line is a clip's file name and a class")
            continue
        label = rest[0].strip()
        if "_" in label:
            report.note(path, line, f"{name} {label}", "a compound class has no single label; left out")
            continue
        yield line, f"{int(stem):05d}", expression_of(label, CLASSES, path, line, report)


def _clips(root: Path, delivery: str) -> tuple[Path, dict[int, Path]]:
    """The delivery's folder and its clips by number: folders of frames, else videos."""
    for name in _FRAMES if delivery != "original" else ():
        place = find_folder(root, name)
        folders = by_number(place, is_folder) if place else {}
        if place and folders:
            return place, folders
    folder = find_folder(root, *_VIDEOS)
    if folder is None or delivery == "frames":
        return root / _FRAMES[0], {}
    return folder, by_number(folder, is_video)


def read(root: Path, options: MAFWOptions, report: Report) -> Iterator[Record]:
    """All clips with a single class, with the set in which each is test."""
    sets = find_folder(root, *_LISTS) or root / _USUAL_LISTS
    lists = {str(k): (follow(sets, f"set_{k}/train.txt"), follow(sets, f"set_{k}/test.txt")) for k in range(1, 6)}
    folder, clips = _clips(root, options.delivery)
    return folded_records(read_folds(lists, _parse, report), folder, clips, report)


CORPUS = Corpus(
    name="mafw",
    title="MAFW",
    task="fe",
    options=MAFWOptions,
    read=read,
    layout="""\
Train & Test Set/single/no_caption/set_1/train.txt, test.txt      set_1..set_5: "00025.mp4 anger"
data/clips/00025.mp4                                              or folders of frames data/frames/00025/*.jpg""",
)
