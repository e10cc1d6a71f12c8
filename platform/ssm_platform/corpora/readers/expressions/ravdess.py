"""RAVDESS (Livingstone & Russo, 2018): 24 actors speak and sing in eight emotions; anybody may fetch it.

A file's name is seven numbers: modality (01 audio and video, 02 video alone, 03 audio alone), channel (01 speech, 02
song), emotion, intensity, statement, repetition, actor (odd: male). 01 and 02 show the same pictures, so one of them is
read. "Calm" is no expression of ours. Groups are the actors; no split is the owners'.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from ssm.labels import BASIC_EXPRESSIONS, Vocabulary
from ssm_platform.base import in_companion
from ssm_platform.corpora.base import Cause, Corpus, ReadOptions, Report
from ssm_platform.corpora.sources import video_frames, whole_record
from ssm_platform.media import VIDEO_ENDINGS
from ssm_platform.records import Record

CLASSES = {1: "neutral", 3: "happiness", 4: "sadness", 5: "anger", 6: "fear", 7: "disgust", 8: "surprise"}
"""Emotion number -> expression."""

_CALM, _SOUND, _ACTORS = 2, 3, 24
_NAME = re.compile(r"(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)-(\d\d)")


class RAVDESSOptions(ReadOptions):
    """RAVDESS: what "calm" is taken for."""

    calm: Literal["drop", "neutral"] = Field(default="drop", description='"calm": left out, or taken for neutral')

    def vocabulary(self, root: Path) -> Vocabulary:
        """The seven basic expressions."""
        return Vocabulary(expressions=BASIC_EXPRESSIONS)


def read(root: Path, options: RAVDESSOptions, report: Report) -> Iterator[Record]:
    """One record a performance, of its actor."""
    performances: dict[str, Path] = {}
    videos = (path for path in root.rglob("*") if path.suffix.lower() in VIDEO_ENDINGS)
    for path in sorted(path for path in videos if not in_companion(path.relative_to(root).parts)):
        match = _NAME.fullmatch(path.stem)
        if match is None:
            report.rows += 1
            report.problem(path, None, path.name, "a clip is named by seven numbers of two digits")
        elif int(match[1]) != _SOUND:
            performances.setdefault(path.stem[3:], path)  # sorted: 01 comes before 02
    for name, path in performances.items():
        report.rows += 1
        yield from _record(name, path, options, report)


def _record(name: str, path: Path, options: RAVDESSOptions, report: Report) -> Iterator[Record]:
    _, emotion, _, _, _, actor = (int(number) for number in name.split("-"))
    expression = CLASSES.get(emotion) or ("neutral" if emotion == _CALM and options.calm == "neutral" else None)
    if not 1 <= actor <= _ACTORS:
        report.problem(path, None, f"actor {actor:02d}", f"an actor is 01-{_ACTORS}")
    elif emotion == _CALM and expression is None:
        report.note(path, None, "calm", "calm is no expression of the vocabulary; left out (option calm)")
    elif expression is None:
        report.problem(path, None, f"emotion {emotion:02d}", "an emotion is 01-08")
    elif (frames := video_frames(path, report, Cause(path))) is not None:
        yield replace(whole_record(name, frames, expression, report), subject=f"{actor:02d}")


def people(root: Path) -> Mapping[str, Mapping[str, str]]:
    """The sex of each actor, by the number: odd is male."""
    return {f"{actor:02d}": {"Sex": "Male" if actor % 2 else "Female"} for actor in range(1, _ACTORS + 1)}


CORPUS = Corpus(
    name="ravdess",
    title="RAVDESS",
    task="fe",
    options=RAVDESSOptions,
    read=read,
    people=people,
    layout="""\
Actor_01/01-01-03-01-02-01-01.mp4      modality, channel, emotion, intensity, statement, repetition, actor
emotions: 01 neutral 02 calm 03 happy 04 sad 05 angry 06 fearful 07 disgust 08 surprised""",
)
