"""Reading what people typed: text in UTF-8 or GBK, label codes, class names in other case or spelling.

Each helper tells the `Report` what it had to guess; a value it cannot read is reported, never guessed.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import math
import re
from collections.abc import Callable, Iterator, Mapping
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
_SEPARATORS = "\t;,|"
_EXCEL_HINT = re.compile(r'"?sep=(.)"?\s*')  # a first line by which Excel tells itself the separator
_DRIVE = re.compile(r"^(?:file:/*)?[A-Za-z]:(?=/)|^file:/*(?=/)")
_ENCODINGS = ("utf-8-sig", "gb18030")  # gb18030 reads every GBK file
_ENDS = re.compile(r"\r\n|\n|\r")  # `str.splitlines` knows eight more, which shift the lines behind them
_LARGEST = 2**53  # whole numbers beyond are not exact in a float
_CLOSE = 0.8  # difflib ratio: one letter dropped or swapped in a class name


def read_lines(path: Path, report: Report) -> list[str]:
    """The lines of a text file without line ends; an absent or unreadable file is reported and has none."""
    try:
        data = path.read_bytes()
    except OSError as error:
        report.problem(path, None, error.strerror, "a label file is there and can be read")
        return []
    for encoding in _encodings(data):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        if encoding == _ENCODINGS[1]:
            report.note(path, None, "not UTF-8", "text is UTF-8 or GBK; read as GBK")
        return _ENDS.split(text.removesuffix("\n").removesuffix("\r"))
    report.problem(path, None, "neither UTF-8 nor GBK", "text is UTF-8 or GBK")
    return []


def _encodings(data: bytes) -> tuple[str, ...]:
    """What the bytes may be: UTF-16 by its mark, or where every second byte of the beginning is zero."""
    if data.startswith(_UTF16):
        return ("utf-16",)
    head = data[:64]
    if len(head) >= 4 and not any(head[1::2]) and all(head[::2]):
        return ("utf-16-le",)
    return _ENCODINGS


def read_csv(path: Path, report: Report) -> Iterator[tuple[int, list[str]]]:
    """(line, stripped cells) of each row of a csv with commas, semicolons or tabs: a line that is not blank.

    A line that is not well formed, such as one with an open quote, is reported and lost. With the first one, which may
    be the header, all are.
    """
    lines = read_lines(path, report)
    hint = _EXCEL_HINT.fullmatch(lines[0]) if lines else None
    separator = hint[1] if hint else _separator(lines[0] if lines else "")
    begun = False
    for line, text in enumerate(lines[bool(hint) :], 1 + bool(hint)):
        try:
            (read,) = csv.reader([text], delimiter=separator or ",", skipinitialspace=True, strict=True)
        except csv.Error as error:
            count = 1 if begun else sum(bool(rest.strip()) for rest in lines[line - 1 :])
            report.rows += count
            report.problem(path, line, text, f"a row of a csv is one line and well formed ({error})", count)
            if not begun:
                return
            continue
        if any(row := [cell.strip() for cell in read]):
            begun = True
            yield line, row


def cells(text: str) -> list[str]:
    """The cells of a line, quotes taken off: between tabs, else semicolons, else commas, else blanks."""
    separator = _separator(text)
    if not separator:
        return [cell.strip("\"'") for cell in text.split()] or [""]
    try:
        row = next(csv.reader([text.strip()], delimiter=separator, skipinitialspace=True), [""])
    except csv.Error:
        row = text.split(separator)
    return [cell.strip() for cell in row]


def _separator(text: str) -> str:
    """What separates the cells of a line; empty for blanks."""
    return next((mark for mark in _SEPARATORS if mark in text), "")


def data_lines(path: Path, is_row: Callable[[str], object], report: Report) -> Iterator[tuple[int, str]]:
    """`content` of a list that should have no header; a first line of words alone is noted and passed over."""
    for position, (line, text) in enumerate(content(read_lines(path, report))):
        if position == 0 and not is_row(text) and not any(letter.isdigit() for letter in text):
            report.note(path, line, text, "a header line; passed over")
        else:
            yield line, text


def portable(text: str) -> str:
    """A path as it is written here, whatever system wrote it: no drive, no backslash, no `./`, no doubled separator."""
    path = _DRIVE.sub("", text.strip().strip("\"'").replace("\\", "/"))
    steps = [step for step in path.split("/") if step not in ("", ".")]
    return ("/" if path.startswith("/") else "") + "/".join(steps)


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
        near = difflib.get_close_matches(key, known, n=1, cutoff=0.4)
        rule = "a class is one of " + ", ".join(usual) + (f"; did you mean {known[near[0]]}?" if near else "")
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
