"""Prepared DISFA lists: one JSON object per line, {"img_path": "RightVideoSN010/frame_1.jpg", "AUs": [999, 25, ...]}.

``AUs`` holds the active AUs; 999 fills the rest. An AU that is not named is inactive.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from ssm.labels import DISFA_AUS
from ssm_platform.corpora.base import Corpus, Report
from ssm_platform.corpora.frame_lists import FrameListFormat, FrameListOptions, read_frame_lists
from ssm_platform.corpora.labels import Coding
from ssm_platform.corpora.readers.action_units import disfa
from ssm_platform.records import Record

_EMPTY = 999
_KNOWN = {str(au) for au in (*disfa.AUS, _EMPTY)}
_SUBJECT = re.compile(r"SN\d{3}", re.IGNORECASE)


class ListDISFAOptions(FrameListOptions):
    """Prepared DISFA lists: the lists, and which AUs."""

    scored = disfa.AUS
    aus: tuple[int, ...] = Field(default=DISFA_AUS, description="AU numbers to use as label columns, in this order")


def _parse(text: str, aus: tuple[int, ...]) -> tuple[str, list[str]] | None:
    try:
        row = json.loads(text)
        image, active = row["img_path"], row["AUs"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(image, str) or not isinstance(active, list) or set(map(str, active)) - _KNOWN:
        return None
    return image, [str(int(au in active)) for au in aus]


def _subject(folder: str) -> str | None:
    """SN010 for "RightVideoSN010"; None for another name."""
    named = _SUBJECT.search(folder)
    return named[0].upper() if named else None


_FORMAT = FrameListFormat(
    parse=_parse,
    line='a line is {"img_path": image whose name ends in its number, "AUs": [active AUs of DISFA, 999 = empty]}',
    coding=Coding(),
    subject=_subject,
    parts=disfa.PARTS,
    rate=disfa.RATE,
)


def read(root: Path, options: ListDISFAOptions, report: Report) -> Iterator[Record]:
    """All listed folders."""
    return read_frame_lists(root, options, _FORMAT, report)


CORPUS = Corpus(
    name="list_disfa",
    title="Prepared DISFA list",
    task="au",
    options=ListDISFAOptions,
    read=read,
    prevalence=disfa.CORPUS.prevalence,
    layout="""\
DISFA_train1.json, DISFA_test1.json  (option fold), or DISFA_all.json, or options train and test:
                                     lines {"img_path": "RightVideoSN010/frame_1.jpg", "AUs": [999]}
RightVideoSN010/frame_1.jpg          below the root, a folder in it, or option images""",
)
