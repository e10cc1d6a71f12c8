"""Prepared BP4D lists: one image and twelve labels per line ("2F23_10/1001.jpg 0 1 ..."), AUs in BP4D's order.

The label belongs to the image it stands beside (no shift).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from ssm.labels import BP4D_AUS
from ssm_platform.corpora.base import Corpus, Report
from ssm_platform.corpora.frame_lists import FrameListFormat, FrameListOptions, read_frame_lists
from ssm_platform.corpora.labels import Coding
from ssm_platform.corpora.readers.action_units.bp4d import PARTS, PREVALENCE, RATE
from ssm_platform.corpora.text import cells
from ssm_platform.records import Record

_FOLDER = re.compile(r"2([FM])(\d\d)_\d\d", re.IGNORECASE)


class ListBP4DOptions(FrameListOptions):
    """Prepared BP4D lists: the lists, and the AUs of their columns."""

    aus: tuple[int, ...] = Field(default=BP4D_AUS, description="AU numbers of the list's columns, in order")


def _parse(text: str, aus: tuple[int, ...]) -> tuple[str, list[str]] | None:
    row = cells(text)
    return (row[0], row[1:]) if len(row) == 1 + len(aus) else None


def _subject(folder: str) -> str | None:
    """F023 for "2F23_10"; None for another name."""
    named = _FOLDER.search(folder)
    return f"{named[1].upper()}{int(named[2]):03d}" if named else None


_FORMAT = FrameListFormat(
    parse=_parse,
    line="a line is an image whose name ends in its number, and one label per AU",
    coding=Coding(missing=(9, -1, 999)),
    subject=_subject,
    parts=PARTS,
    rate=RATE,
)


def read(root: Path, options: ListBP4DOptions, report: Report) -> Iterator[Record]:
    """All listed folders."""
    return read_frame_lists(root, options, _FORMAT, report)


CORPUS = Corpus(
    name="list_bp4d",
    title="Prepared BP4D list",
    task="au",
    options=ListBP4DOptions,
    read=read,
    prevalence=PREVALENCE,
    layout="""\
train_1f_data.list       and test_1f_data.list (option fold), or options train and test: "2F23_10/1001.jpg b1 ... b12",
                         AUs 1 2 4 6 7 10 12 14 15 17 23 24
2F23_10/1001.jpg         below the root, a folder in it, or option images""",
)
