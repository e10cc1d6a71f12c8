"""FER-2013 (Goodfellow et al., 2013): 48 x 48 grey faces with one of seven classes; each is a clip of one frame.

Read are the folders that Kaggle distributes and the owners' one csv. Parts are the owners': "Training", "PublicTest"
(validation) and "PrivateTest" (test). Some images are there twice, also across parts: see option `duplicates`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from ssm.labels import BASIC_EXPRESSIONS, Vocabulary
from ssm_platform.corpora.base import Corpus, ReadOptions, Report
from ssm_platform.corpora.images import Duplicates, Seen, digest_of, distinct, look
from ssm_platform.corpora.sources import image_record
from ssm_platform.corpora.text import expression_of, integer
from ssm_platform.corpora.tree import entries
from ssm_platform.media import PICTURE_ENDINGS, PIXELS, parse_pixels, rows_of
from ssm_platform.records import Record

CLASSES = dict(enumerate(("anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral")))
"""Code in the csv -> expression."""

FOLDERS = {"angry": "anger", "disgust": "disgust", "fear": "fear", "happy": "happiness"} | {
    "neutral": "neutral", "sad": "sadness", "surprise": "surprise"
}  # fmt: skip
"""Name of a folder -> expression."""

PARTS = ("Training", "PublicTest", "PrivateTest")
"""In the order of training, validation, test."""

_SIDES = {"train": ("Training",), "test": ("PublicTest", "PrivateTest")}
_TABLES = ("fer2013.csv", "fer2013/fer2013.csv", "icml_face_data.csv")
_COLUMNS = ("emotion", PIXELS, "Usage")


class FER2013Options(ReadOptions):
    """FER-2013: what becomes of images that are there twice."""

    duplicates: Duplicates = Field(
        default="drop",
        description="images that are in several parts: drop the copies in training (then validation), or keep them, "
        "which is a leak that allow_leaks must accept",
    )

    def vocabulary(self, root: Path) -> Vocabulary:
        """The seven basic expressions."""
        return Vocabulary(expressions=BASIC_EXPRESSIONS)


def read(root: Path, options: FER2013Options, report: Report) -> Iterator[Record]:
    """All images of the folders, or of the csv where there are none."""
    path = table(root)
    seen = _read_folders(root, report) if path is None else _read_table(path, report)
    return distinct(seen, PARTS, options.duplicates, report)


def table(root: Path) -> Path | None:
    """The owners' csv where the folders are not there."""
    if any((root / side).is_dir() for side in _SIDES):
        return None
    return next((root / name for name in _TABLES if (root / name).is_file()), None)


def _read_folders(root: Path, report: Report) -> Iterator[Seen]:
    """``train/<class>/Training_N.jpg``, ``test/<class>/PublicTest_N.jpg`` and ``PrivateTest_N.jpg``."""
    for side, parts in _SIDES.items():
        for folder in (path for path in entries(root / side) if path.is_dir()):
            names = [path.name for path in entries(folder) if path.suffix.lower() in PICTURE_ENDINGS]
            expression = expression_of(folder.name, FOLDERS, folder, 0, report) if names else None
            report.rows += len(names)
            for name in names if expression else []:
                part = name.partition("_")[0]
                if part not in parts:
                    report.problem(folder / name, None, name, f"an image of {side}/ is named {'_N or '.join(parts)}_N")
                elif (digest := look(folder / name, folder / name, None, report)) is not None:
                    clip = f"{folder.name}/{Path(name).stem}"  # two names of Training are in two folders
                    record = image_record(clip, folder / name, expression or "", report, part)
                    yield Seen(record, folder / name, None, digest)


def _read_table(path: Path, report: Report) -> Iterator[Seen]:
    """Lines ``emotion,pixels,Usage``, the columns in any order."""
    rows = rows_of(path)
    _, header = next(rows, (1, []))
    if absent := [name for name in _COLUMNS if name not in header]:
        report.problem(path, 1, ",".join(header), f"the columns are {', '.join(_COLUMNS)}; {absent[0]} is not there")
        return
    for line, cells in rows:
        if not any(cells):
            continue
        report.rows += 1
        row = dict(zip(header, cells, strict=False))
        expression, part = CLASSES.get(_code(row.get("emotion", ""))), row.get("Usage", "")
        if expression is None:
            report.problem(path, line, row.get("emotion", ""), "emotion is 0-6")
        elif part not in PARTS:
            report.problem(path, line, part, f"Usage is one of {', '.join(PARTS)}")
        elif (digest := look_at_row(row.get(PIXELS, ""), path, line, report)) is not None:
            yield Seen(row_record(f"line {line}", report.root, path, line, expression, part), path, line, digest)


def look_at_row(text: str, path: Path, line: int, report: Report) -> str | None:
    """The digest of an image typed as numbers; None, and reported, where it is none."""
    try:
        return digest_of(parse_pixels(text))
    except ValueError as error:
        report.problem(path, line, error, "pixels are the numbers of one square image")
        return None


def row_record(clip: str, root: Path, path: Path, line: int, expression: str, part: str) -> Record:
    """The record of the image in line `line` (from 1) of a csv."""
    source = path.relative_to(root).as_posix()
    return Record(clip, source, "pixels", line - 1, 1, None, part, None, None, expression)


def _code(text: str) -> int:
    value = integer(text)
    return -1 if value is None else value


CORPUS = Corpus(
    name="fer2013",
    title="FER-2013",
    task="fe",
    options=FER2013Options,
    read=read,
    layout="""\
train/happy/Training_10019449.jpg      one folder a class: angry disgust fear happy neutral sad surprise
test/happy/PublicTest_10089743.jpg     and test/happy/PrivateTest_10131363.jpg
fer2013.csv                            or the owners' file: emotion,pixels,Usage""",
    counts={"anger": 4953, "disgust": 547, "fear": 5121, "happiness": 8989, "sadness": 6077, "surprise": 4002}
    | {"neutral": 6198},
)
