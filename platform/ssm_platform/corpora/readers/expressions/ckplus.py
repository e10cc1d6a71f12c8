"""CK+ (Lucey et al., 2010): posed sequences from neutral to the peak, one emotion for the sequence, 123 subjects, no
split.

The sequence is one expression clip. Its FACS codes describe the peak frame alone, so they are no frame labels and are
not read. Sequences without an emotion file are most of the corpus; they are counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ssm.labels import EXPRESSIONS, Vocabulary
from ssm_platform.corpora.base import Cause, Corpus, ReadOptions, Report
from ssm_platform.corpora.sources import folder_frames, whole_record
from ssm_platform.corpora.text import content, integer, read_lines
from ssm_platform.corpora.tree import entries, find_all, find_folder, follow
from ssm_platform.records import Record

CLASSES = dict(enumerate(("neutral", "anger", "contempt", "disgust", "fear", "happiness", "sadness", "surprise")))
"""Label -> expression."""

_EMOTIONS = ("Emotion/S*/*", "Emotion_labels/Emotion/S*/*", "Emotion*/S*/*")


class CKPlusOptions(ReadOptions):
    """CK+ has no options of its own."""

    def vocabulary(self, root: Path) -> Vocabulary:
        """The seven basic expressions and contempt."""
        return Vocabulary(expressions=EXPRESSIONS[:8])


def read(root: Path, options: CKPlusOptions, report: Report) -> Iterator[Record]:
    """All sequences with an emotion."""
    images = find_folder(root, "cohn-kanade-images", "*cohn-kanade-images/cohn-kanade-images", "images")
    images = images or root / "cohn-kanade-images"
    for folder in (path for path in find_all(root, *_EMOTIONS) if path.is_dir()):
        subject, sequence = folder.parent.name, folder.name
        path = next((path for path in entries(folder) if path.name.lower().endswith("_emotion.txt")), None)
        if path is None:
            report.note(folder, None, "no emotion file", "a sequence has an emotion; left out")
            continue
        report.rows += 1
        expression = _expression(path, report)
        frames = folder_frames(follow(images, f"{subject}/{sequence}"), report, Cause(path)) if expression else None
        if expression and frames is not None:
            yield replace(whole_record(f"{subject}/{sequence}", frames, expression, report), subject=subject)


def _expression(path: Path, report: Report) -> str | None:
    """The one number of an emotion file ("3.0000000e+00")."""
    lines = list(content(read_lines(path, report)))
    value = integer(lines[0][1]) if lines else None
    if value not in CLASSES:
        report.problem(path, 1, lines[0][1] if lines else "empty file", "an emotion is 0-7")
    return None if value is None else CLASSES.get(value)


CORPUS = Corpus(
    name="ckplus",
    title="CK+",
    task="fe",
    options=CKPlusOptions,
    read=read,
    layout="""\
Emotion/S005/001/S005_001_00000011_emotion.txt      one number 0-7
cohn-kanade-images/S005/001/S005_001_00000001.png""",
)
