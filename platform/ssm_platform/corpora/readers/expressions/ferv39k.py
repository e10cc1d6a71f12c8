"""FERV39K (Wang et al., 2022): 38,935 clips of 22 scenes, the owner's face frames, one official split."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ssm.labels import BASIC_EXPRESSIONS, Vocabulary
from ssm_platform.corpora.base import Cause, Corpus, ReadOptions, Report
from ssm_platform.corpora.folds import PartLists
from ssm_platform.corpora.sources import folder_frames, whole_record
from ssm_platform.corpora.text import cells, data_lines, expression_of, portable
from ssm_platform.corpora.tree import find_folder, follow
from ssm_platform.records import Record

CLASSES = {
    "Happy": "happiness",
    "Sad": "sadness",
    "Neutral": "neutral",
    "Angry": "anger",
    "Surprise": "surprise",
    "Disgust": "disgust",
    "Fear": "fear",
}
"""The owner's spelling -> expression."""

_LISTS = {"test": "test_All.csv", "train": "train_All.csv"}


class FERV39KOptions(ReadOptions):
    """FERV39K has no options of its own."""

    def vocabulary(self, root: Path) -> Vocabulary:
        """The seven basic expressions."""
        return Vocabulary(expressions=BASIC_EXPRESSIONS)


def read(root: Path, options: FERV39KOptions, report: Report) -> Iterator[Record]:
    """All listed clips, parts "train" and "test"; the scene is the first folder of a clip's name."""
    setups = find_folder(root, "4_setups/All_scenes", "All_scenes", "4_setups") or root / "4_setups/All_scenes"
    crops = find_folder(root, "2_ClipsforFaceCrop*", "*ClipsforFaceCrop*") or root
    lists = PartLists(report)
    for part, name in _LISTS.items():
        path = follow(setups, name)
        for line, text in data_lines(path, _parse, report):
            report.rows += 1
            row = _parse(text)
            if row is None:
                report.problem(path, line, text, "a line is Scene/Emotion/number and a class")
            elif lists.admits(row[0], part, path, line):
                yield from _clip(crops, *row, part, path, line, report)


def _parse(text: str) -> tuple[str, str] | None:
    """Clip and class of a line "Action/Sad/0010 Sad", whatever stands between them."""
    *clip, label = cells(text)
    name = portable(" ".join(clip))
    return (name, label) if name.count("/") == 2 else None


def _clip(crops: Path, clip: str, label: str, part: str, path: Path, line: int, report: Report) -> Iterator[Record]:
    folder = clip.split("/")
    expression = expression_of(label, CLASSES, path, line, report)
    frames = folder_frames(follow(crops, clip), report, Cause(path, line)) if expression else None
    if expression and frames is not None:
        if CLASSES.get(folder[1], expression) != expression:
            report.note(path, line, f"{clip} {label}", "a clip's folder and its listed class agree; the list is used")
        yield whole_record(clip, frames, expression, report, part)


CORPUS = Corpus(
    name="ferv39k",
    title="FERV39K",
    task="fe",
    options=FERV39KOptions,
    read=read,
    layout="""\
4_setups/All_scenes/train_All.csv, test_All.csv       no header: "Action/Sad/0010 Sad"
2_ClipsforFaceCrop/Action/Sad/0010/*.jpg""",
)
