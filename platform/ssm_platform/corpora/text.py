"""Reading what people typed: text in UTF-8 or GBK, label codes, class names in other case or spelling.

Each helper tells the `Report` what it had to guess; a value it cannot read is reported, never guessed.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

from ssm.labels import EXPRESSIONS
from ssm_platform.corpora.base import Report

SPELLINGS: Mapping[str, str] = MappingProxyType(
    {name: name for name in EXPRESSIONS}
    | {"happy": "happiness", "joy": "happiness", "sad": "sadness", "angry": "anger", "surprised": "surprise"}
    | {"disgusted": "disgust", "fearful": "fear", "afraid": "fear", "scared": "fear", "anxious": "anxiety"}
    | {"contemptuous": "contempt", "helpless": "helplessness", "disappointed": "disappointment"}
)
"""Lower-case class names met in the wild, and the expression they mean."""

_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)  # how a spreadsheet saves "Unicode text"
_ENCODINGS = ("utf-8-sig", "gb18030")  # gb18030 reads every GBK file
_LARGEST = 2**53  # whole numbers beyond are not exact in a float
_CLOSE = 0.8  # difflib ratio: one letter dropped or swapped in a class name


def read_lines(path: Path, report: Report) -> list[str]:
    """The lines of a text file without line ends; an absent or unreadable file is reported and has none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        report.problem(path, None, error.strerror, "a label file is there and can be read")
        return []
    for encoding in ("utf-16",) if data.startswith(_UTF16) else _ENCODINGS:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        if encoding not in ("utf-16", _ENCODINGS[0]):
            report.note(path, None, "not UTF-8", "text is UTF-8 or GBK; read as GBK")
        return text.splitlines()
    report.problem(path, None, "neither UTF-8 nor GBK", "text is UTF-8 or GBK")
    return []


def read_csv(path: Path, report: Report) -> Iterator[tuple[int, list[str]]]:
    """(line, stripped cells) of each row of a csv; where it is not well formed it is reported and ends."""
    reader = csv.reader(read_lines(path, report))
    try:
        yield from ((reader.line_num, [cell.strip() for cell in row]) for row in reader)
    except csv.Error as error:
        report.problem(path, reader.line_num, error, "a csv is well formed; the rest is not read")


def content(lines: list[str]) -> Iterator[tuple[int, str]]:
    """The lines that say something, stripped, with their number counted from 1."""
    return ((number, line.strip()) for number, line in enumerate(lines, 1) if line.strip())


def expression_of(text: str, usual: Mapping[str, str], path: Path, line: int, report: Report) -> str | None:
    """The expression a class name means: as the owner spells it (``usual``), else by `SPELLINGS`, else reported and
    None.
    """
    if text in usual:
        return usual[text]
    key = text.strip().lower()
    known = {name.lower(): expression for name, expression in usual.items()}
    known |= {name: expression for name, expression in SPELLINGS.items() if expression in known.values()}
    close = difflib.get_close_matches(key, known, n=1, cutoff=_CLOSE)
    if not close:
        rule = "a class is one of " + ", ".join(usual)
        report.problem(path, line, text, rule)
        return None
    expression = known[close[0]]
    report.note(path, line, text, f"a class name is spelt as the owner does; read as {expression}")
    return expression


def real(text: str) -> float | None:
    """A finite number, or None."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def integer(text: str) -> int | None:
    """A whole number however it is written ("12", "12.0", " 012"), or None."""
    value = real(text)
    return int(value) if value is not None and value.is_integer() and abs(value) <= _LARGEST else None
