"""AFEW-VA (Kossaifi et al., 2017): 600 clips of films, valence and arousal of every frame as whole numbers -10..10.

A folder per clip holds its frames and one JSON file, ``{"video_id": ..., "frames": {"00000": {"valence": 3, "arousal":
-2, "landmarks": [...]}}}``; frames are counted from 0, a few of them are not there. Who is seen is not said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ssm.labels import AFFECT
from ssm_platform.corpora.affect import AffectCoding, AffectRows
from ssm_platform.corpora.base import AffectOptions, Corpus, Report
from ssm_platform.corpora.labels import FrameLabels, frame_number
from ssm_platform.corpora.sources import Sequence, folder_frames, labelled_records
from ssm_platform.corpora.tree import find_all
from ssm_platform.records import Record

_CODING = AffectCoding(top=10.0)


class AFEWVAOptions(AffectOptions):
    """AFEW-VA has no options of its own."""


def read(root: Path, options: AFEWVAOptions, report: Report) -> Iterator[Record]:
    """All annotated clips."""
    for path in find_all(root, "*/*.json"):
        labels = _labels(path, report)
        frames = None if labels is None else folder_frames(path.parent, report, labels.cause)
        if labels is not None and frames is not None:
            yield from labelled_records(Sequence(path.stem), labels, frames, report, sparse=True)


def _labels(path: Path, report: Report) -> FrameLabels | None:
    frames = _frames(path, report)
    if frames is None:
        return None
    rows = AffectRows(path, _CODING, report)
    for name, frame in frames.items():
        report.rows += 1
        number = frame_number(name)
        if number is None or not isinstance(frame, dict):
            report.problem(path, None, name, "a frame is named by its number and holds valence and arousal")
        else:
            rows.add(None, number, [str(frame.get(dimension, "none")) for dimension in AFFECT])
    return rows.labels()


def _frames(path: Path, report: Report) -> dict[str, Any] | None:
    """What a file says of its frames; None, and reported, where it is no such file."""
    rule = "a label file is JSON with an object of frames"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        report.problem(path, error.lineno, error.msg, rule)
        return None
    except (OSError, ValueError, RecursionError) as error:  # not UTF-8, a number of thousands of digits, deep nesting
        report.problem(path, None, error, rule)
        return None
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, dict):
        report.problem(path, None, "no frames", rule)
        return None
    return frames


CORPUS = Corpus(
    name="afewva",
    title="AFEW-VA",
    task="va",
    options=AFEWVAOptions,
    read=read,
    layout="""\
001/001.json        {"video_id": ..., "frames": {"00000": {"valence": 3, "arousal": -2, ...}}}: whole numbers -10..10
001/00000.png       the frames, from 0""",
)
