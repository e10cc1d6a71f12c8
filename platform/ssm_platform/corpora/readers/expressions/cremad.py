"""CREMA-D (Cao et al., 2014): 7,442 clips of 91 actors who speak twelve sentences in six emotions, openly licensed.

A clip's file says actor, sentence, what was to be acted and at what level. What people saw in the face alone is in
``processedResults/tabulatedVotes.csv`` (rows 2xxxxx; 1 voice, 3 both): these votes are the labels where they are there,
the acted emotion elsewhere. Groups are the actors; no split is the owners'.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from ssm.labels import Vocabulary
from ssm_platform.corpora.base import Cause, Corpus, ReadOptions, Report
from ssm_platform.corpora.sources import video_frames, whole_record
from ssm_platform.corpora.text import integer, read_csv
from ssm_platform.corpora.tree import entries, find_folder
from ssm_platform.corpora.votes import Soft, Votes, soft
from ssm_platform.media import VIDEO_ENDINGS
from ssm_platform.records import Record

CLASSES = {"ANG": "anger", "DIS": "disgust", "FEA": "fear", "HAP": "happiness", "NEU": "neutral", "SAD": "sadness"}
"""Code in a file name -> expression; its first letter is the column of the votes."""

ORDER = ("happiness", "sadness", "neutral", "anger", "disgust", "fear")
"""The label columns."""

_NAME = re.compile(r"(\d{4})_([A-Z]{3})_([A-Z]{3})_(LO|MD|HI|XX|X)")
_FOLDERS = ("VideoFlash", "VideoMP4", "videos")
_VOTES, _PEOPLE = "processedResults/tabulatedVotes.csv", "VideoDemographics.csv"
_FACE_ALONE = 2  # rows are numbered 100000 * what people saw and heard + clip: 1 voice, 2 face, 3 both


class CREMADOptions(ReadOptions):
    """CREMA-D: whose word is the label."""

    labels: Literal["votes", "acted"] = Field(
        default="votes", description="what people saw in the face alone (a distribution), or what was to be acted"
    )

    def vocabulary(self, root: Path) -> Vocabulary:
        """Six expressions: nobody acts surprise."""
        return Vocabulary(expressions=ORDER)


def read(root: Path, options: CREMADOptions, report: Report) -> Iterator[Record]:
    """All clips, each of its actor."""
    actors, votes = people(root), _face_votes(root, options, report)
    if not actors:
        value, rule = "absent", "the actors are listed; without the list they are taken from the file names"
        report.note(root / _PEOPLE, None, value, rule)
    folder = find_folder(root, *_FOLDERS) or root
    for path in (path for path in entries(folder) if path.suffix.lower() in VIDEO_ENDINGS):
        report.rows += 1
        match = _NAME.fullmatch(path.stem)
        if match is None or match[3] not in CLASSES:
            report.problem(path, None, path.name, "a clip is named ACTOR_SENTENCE_EMOTION_LEVEL")
        elif actors and match[1] not in actors:
            report.problem(path, None, match[1], f"a clip's actor is in {_PEOPLE}")
        elif (frames := video_frames(path, report, Cause(path))) is not None:
            record = whole_record(path.stem, frames, CLASSES[match[3]], report)
            yield _labelled(record, match[1], votes)


def people(root: Path) -> Mapping[str, Mapping[str, str]]:
    """What is known of each actor (Age, Sex, Race, Ethnicity); empty without the file."""
    path = root / _PEOPLE
    if not path.is_file():
        return {}
    rows = read_csv(path, Report(root))
    _, header = next(rows, (1, []))
    found = (dict(zip(header, cells, strict=False)) for _, cells in rows)
    return {row.pop("ActorID"): row for row in found if row.get("ActorID")}


def _labelled(record: Record, actor: str, votes: Mapping[str, Soft]) -> Record:
    mine = replace(record, subject=actor)
    return votes[record.clip].on(mine) if record.clip in votes else mine


def _face_votes(root: Path, options: CREMADOptions, report: Report) -> dict[str, Soft]:
    """The votes on the face alone by clip; empty where acted labels are asked for or the table is not there."""
    path = root / _VOTES
    if options.labels == "acted" or not path.is_file():
        if options.labels == "votes":
            report.note(path, None, "absent", "people's votes are there; without them the acted emotion is the label")
        return {}
    rows = read_csv(path, report)
    _, header = next(rows, (1, []))
    columns = {expression: code[0] for code, expression in CLASSES.items()}
    if absent := [name for name in ("fileName", *columns.values()) if name not in header]:
        report.problem(path, 1, ",".join(header), f"the columns A D F H N S and fileName are there; {absent[0]} is not")
        return {}
    found: dict[str, Soft] = {}
    for line, cells in rows:
        row = dict(zip(header, cells, strict=False))
        if (integer(cells[0]) or 0) // 100_000 != _FACE_ALONE:
            continue
        if name := row.get("fileName", ""):
            seen = Votes({expression: row.get(column, "") for expression, column in columns.items()})
            label = soft(seen, ORDER, 1, path, line, report)
            if label is not None:
                found[name] = label
        else:
            report.problem(path, line, ",".join(cells), "a row of votes has a fileName")
    return found


CORPUS = Corpus(
    name="cremad",
    title="CREMA-D",
    task="fe",
    options=CREMADOptions,
    read=read,
    people=people,
    layout="""\
VideoFlash/1001_DFA_ANG_XX.flv              actor, sentence, emotion (ANG DIS FEA HAP NEU SAD), level (LO MD HI XX)
VideoDemographics.csv                       ActorID,Age,Sex,Race,Ethnicity
processedResults/tabulatedVotes.csv         votes A D F H N S by fileName; rows 2xxxxx: on the face alone""",
)
