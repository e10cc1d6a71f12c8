"""FER+ (Barsoum et al., 2016): ten people's votes on every image of FER-2013: soft labels over eight classes.

Line i of ``fer2013new.csv`` is line i of ``fer2013.csv``. Read are the images that the owners' script writes, else the
csv of FER-2013 beside the votes. As in its paper, "unknown" and "not a face" are no classes: an image where they won is
left out and counted, elsewhere they are taken off. Single votes count, as option `least_votes` says.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from ssm.labels import EXPRESSIONS, Vocabulary
from ssm_platform.corpora.base import Corpus, Report
from ssm_platform.corpora.images import Seen, distinct, look
from ssm_platform.corpora.readers.expressions import fer2013
from ssm_platform.corpora.sources import image_record
from ssm_platform.corpora.text import read_csv
from ssm_platform.corpora.votes import Votes, soft
from ssm_platform.media import PIXELS, rows_of
from ssm_platform.records import Record

CLASSES = EXPRESSIONS[:8]
"""The seven basic expressions and contempt."""

_FOLDERS = {"Training": "FER2013Train", "PublicTest": "FER2013Valid", "PrivateTest": "FER2013Test"}
_NO_CLASS = ("unknown", "NF")
_VOTES, _USAGE, _NAME = "fer2013new.csv", "Usage", "Image name"


class FERPlusOptions(fer2013.FER2013Options):
    """FER+: how many votes a class needs."""

    least_votes: int = Field(default=1, ge=1, le=10, description="a class with fewer votes has none (the paper: 2)")

    def vocabulary(self, root: Path) -> Vocabulary:
        """The seven basic expressions and contempt."""
        return Vocabulary(expressions=CLASSES)


def read(root: Path, options: FERPlusOptions, report: Report) -> Iterator[Record]:
    """All images with votes for a class."""
    return distinct(_read(root, options, report), fer2013.PARTS, options.duplicates, report)


def _read(root: Path, options: FERPlusOptions, report: Report) -> Iterator[Seen]:
    path, table = root / _VOTES, fer2013.table(root)
    rows = read_csv(path, report)
    _, header = next(rows, (1, []))
    wanted = (_USAGE, _NAME, *CLASSES, *_NO_CLASS)
    if absent := [name for name in wanted if name not in header]:
        report.problem(path, 1, ",".join(header), f"the columns are {', '.join(wanted)}; {absent[0]} is not there")
        return
    typed = {} if table is None else _typed(table)
    for line, cells in rows:
        report.rows += 1
        row = dict(zip(header, cells, strict=False))
        part = row.get(_USAGE, "")
        votes = Votes({name: row.get(name, "") for name in CLASSES}, {name: row.get(name, "") for name in _NO_CLASS})
        found = soft(votes, CLASSES, options.least_votes, path, line, report) if part in _FOLDERS else None
        if part not in _FOLDERS:
            report.problem(path, line, part, f"Usage is one of {', '.join(_FOLDERS)}")
        elif found is not None and (place := _image(root, row.get(_NAME, ""), part)) is not None:
            if (digest := look(place, path, line, report)) is not None:
                record = image_record(place.stem, place, found.expression, report, part)
                yield Seen(found.on(record), path, line, digest)
        elif found is not None and table is not None:
            if (digest := fer2013.look_at_row(typed.get(line, ""), table, line, report)) is not None:
                record = fer2013.row_record(f"line {line}", root, table, line, found.expression, part)
                yield Seen(found.on(record), path, line, digest)
        elif found is not None:
            rule = f"{_FOLDERS[part]}/ or fer2013.csv has the image"
            report.problem(path, line, row.get(_NAME, "") or "no name", rule)


def _image(root: Path, name: str, part: str) -> Path | None:
    places = [root / place / _FOLDERS[part] / name for place in (".", "data", "images")]
    return next((place for place in places if name and place.is_file()), None)


def _typed(table: Path) -> dict[int, str]:
    """The pixels of each line of the csv, as text."""
    rows = rows_of(table)
    _, header = next(rows, (1, []))
    column = header.index(PIXELS) if PIXELS in header else len(header)
    return {line: cells[column] for line, cells in rows if column < len(cells)}


CORPUS = Corpus(
    name="ferplus",
    title="FER+",
    task="fe",
    options=FERPlusOptions,
    read=read,
    layout="""\
fer2013new.csv                     Usage,Image name,neutral,happiness,...,contempt,unknown,NF: votes of ten people
FER2013Train/fer0000000.png        FER2013Valid, FER2013Test (also below data/ or images/)
fer2013.csv                        or the owners' file of FER-2013, whose lines the votes follow""",
)
