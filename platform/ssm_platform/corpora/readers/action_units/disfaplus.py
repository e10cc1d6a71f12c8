"""DISFA+ (Mavadati et al., 2016): 9 subjects, posed trials in image folders, intensities 0-5 of 12 AUs; no official
split.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pydantic import Field

from ssm_platform.corpora.base import AUOptions, Corpus, Report
from ssm_platform.corpora.labels import Coding, read_intensity_files
from ssm_platform.corpora.readers.action_units.disfa import AUS, au_files, report_absent_aus
from ssm_platform.corpora.sources import Sequence, folder_frames, labelled_records
from ssm_platform.corpora.tree import find_all, find_folder, follow
from ssm_platform.records import Record


class DISFAPlusOptions(AUOptions):
    """DISFA+: which AUs, and from which intensity an AU counts as active."""

    scored = AUS
    aus: tuple[int, ...] = Field(default=AUS, description="AU numbers to use as label columns, in this order")
    threshold: int = Field(default=2, ge=1, le=5, description="an AU is active from this intensity (0-5)")


def read(root: Path, options: DISFAPlusOptions, report: Report) -> Iterator[Record]:
    """One sequence per trial."""
    coding = Coding(top=5, threshold=options.threshold)
    images = find_folder(root, "Images") or root / "Images"
    for trial in (path for path in find_all(root, "Labels/*/*") if path.is_dir()):
        subject, files = trial.parent.name, au_files(trial)
        report_absent_aus(trial, files, options.aus, report)
        labels = read_intensity_files(files, options.aus, coding, report)
        if labels is None:
            report.problem(trial, None, "no label row", "a trial's folder holds its label files")
            continue
        frames = folder_frames(follow(images, f"{subject}/{trial.name}"), report, labels.cause)
        if frames is not None:
            yield from labelled_records(Sequence(f"{subject}/{trial.name}", subject), labels, frames, report)


CORPUS = Corpus(
    name="disfaplus",
    title="DISFA+",
    task="au",
    options=DISFAPlusOptions,
    read=read,
    layout="""\
Labels/SN001/A1_AU1_TrailNo_1/AU1.txt      lines "000.jpg     0"; header or # lines possible
Images/SN001/A1_AU1_TrailNo_1/000.jpg""",
)
