"""Prepared expression lists (DFEW, FERV39K, MAFW): "frame_directory n_frames label" per line, labels from 0.

Labels count the expressions in the order of the method page, section 4: seven, or eleven for MAFW (option
``expressions``).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from ssm.labels import BASIC_EXPRESSIONS, Vocabulary
from ssm_platform.corpora.base import Cause, Corpus, Report
from ssm_platform.corpora.folds import PartLists
from ssm_platform.corpora.lists import ListOptions, Resolver, list_files
from ssm_platform.corpora.sources import folder_frames, whole_record
from ssm_platform.corpora.text import cells, data_lines, integer, portable
from ssm_platform.records import Record


class ListFEOptions(ListOptions):
    """Prepared expression lists: the lists, and the classes their labels count."""

    expressions: tuple[str, ...] = Field(
        default=BASIC_EXPRESSIONS, description="the classes of labels 0, 1, ...; for MAFW all eleven, in global order"
    )

    def vocabulary(self, root: Path) -> Vocabulary:
        """The classes in the order of the lists."""
        return Vocabulary(expressions=self.expressions)


@dataclass(frozen=True)
class _Line:
    directory: str
    frames: int
    label: int


_ANY = 2**31


def _parse(text: str, classes: int) -> _Line | None:
    row = cells(text)
    directory, *rest = row if len(row) == 3 else text.rsplit(maxsplit=2)
    numbers = [number for number in map(integer, rest) if number is not None]
    if len(numbers) != 2 or not 0 <= numbers[1] < classes:
        return None
    return _Line(portable(directory), numbers[0], numbers[1])


def read(root: Path, options: ListFEOptions, report: Report) -> Iterator[Record]:
    """All listed clips, part by list; the test list is read first, so that a clip in both stays test."""
    resolver, lists = Resolver(root, options.images, report), PartLists(report)
    for part, path in sorted(list_files(root, options).items()):
        for number, text in data_lines(path, lambda text: _parse(text, _ANY), report):
            report.rows += 1
            line = _parse(text, len(options.expressions))
            if line is None:
                rule = f"a line is frame_directory, n_frames and a label 0..{len(options.expressions) - 1}"
                report.problem(path, number, text, rule)
            elif lists.admits(line.directory, part, path, number):
                folder = resolver.find(line.directory, path, number)
                frames = folder_frames(folder, report, Cause(path, number))
                if frames is None:
                    continue
                if len(frames.numbers) != line.frames:
                    value = f"{frames.source}: {len(frames.numbers)} images, listed {line.frames}"
                    report.note(path, number, value, "a folder holds the number of frames listed; its images are used")
                expression = options.expressions[line.label]
                yield whole_record(frames.source, frames, expression, report, part)


CORPUS = Corpus(
    name="list_fe",
    title="Prepared expression list",
    task="fe",
    options=ListFEOptions,
    read=read,
    layout="""\
DFEW_set_1_train.txt          and DFEW_set_1_test.txt (option fold), FERV39K_train.txt, ..., or options train and test:
                              lines "frame_directory n_frames label", labels from 0
frame_directory/*.jpg         below the root, a folder in it, or option images""",
)
