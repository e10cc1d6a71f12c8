"""Writing a whole synthetic corpus: independent jobs, then one atomic step that makes it appear.

Jobs write into a hidden folder beside the corpus; `CorpusWork.finish` adds lists and truth, then renames it. A corpus
that is there with the same fingerprint is kept; anything else in its place is refused, never overwritten. Knows no Ray:
hand `run_job` to a process pool or to Ray tasks.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2

from ssm_platform.synthetic.behaviour import association
from ssm_platform.synthetic.lab import LAB_CORPORA, lab_jobs
from ssm_platform.synthetic.spec import MARKER, SyntheticSpec
from ssm_platform.synthetic.truth import FOLDER, read_clips, write_association, write_clips
from ssm_platform.synthetic.wild import WILD_CORPORA, wild_jobs, wild_plan

CORPORA = (*LAB_CORPORA, *WILD_CORPORA)
"""Names of the corpora that can be written."""


class Job(Protocol):
    """A piece of a corpus: picklable, independent of all others, safe to run again."""

    @property
    def name(self) -> str:
        """Unique among the corpus's jobs."""

    def run(self, root: Path) -> None:
        """Writes its files below `root`."""


@dataclass(frozen=True)
class PlacedJob:
    """A job and the folder it writes into."""

    job: Job
    folder: Path


def run_job(placed: PlacedJob) -> str:
    """Runs one job in this process, on one core; returns its name."""
    cv2.setNumThreads(1)
    placed.job.run(placed.folder)
    return placed.job.name


@dataclass(frozen=True)
class CorpusWork:
    """What is left to do for a corpus: run all `jobs` (none where it is complete), in any order, then `finish`."""

    corpus: str
    root: Path
    spec: SyntheticSpec
    seed: int
    jobs: tuple[PlacedJob, ...]

    def finish(self) -> Path:
        """Lists, truth, marker, and the rename that makes the corpus appear; returns its root."""
        if not self.jobs:
            return self.root
        folder = self.jobs[0].folder
        _merge_truth(folder, self.corpus, self.spec, [placed.job for placed in self.jobs])
        joined = LAB_CORPORA[self.corpus].lists if self.corpus in LAB_CORPORA else None
        if joined is not None:
            joined(folder)
        if self.corpus in WILD_CORPORA:
            WILD_CORPORA[self.corpus].lists(folder, wild_plan(self.corpus, self.spec.wild, self.seed))
        (folder / MARKER).write_text(json.dumps(_marker(self.corpus, self.spec, self.seed), indent=1) + "\n")
        if self.root.is_dir():
            self.root.rmdir()  # `corpus_jobs` saw that it was empty; fails where it no longer is
        os.replace(folder, self.root)
        return self.root


def corpus_jobs(name: str, root: str | Path, spec: SyntheticSpec, seed: int) -> CorpusWork:
    """The work that is left for corpus `name` in folder `root`. ValueError where `root` holds something else."""
    if name not in CORPORA:
        raise ValueError(f"no synthetic corpus {name!r}; known: {', '.join(CORPORA)}")
    root = Path(root).absolute()
    if _is_complete(root, _marker(name, spec, seed)):
        return CorpusWork(name, root, spec, seed, ())
    folder = root.parent / f".{root.name}.{spec.fingerprint(name, seed)}"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / FOLDER / "parts").mkdir(parents=True)
    jobs: Iterable[Job] = lab_jobs(name, spec, seed) if name in LAB_CORPORA else wild_jobs(name, spec, seed)
    return CorpusWork(name, root, spec, seed, tuple(PlacedJob(job, folder) for job in jobs))


def write_corpus(
    name: str,
    root: str | Path,
    spec: SyntheticSpec,
    seed: int,
    processes: int = 1,
    on_job: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Writes corpus `name` into folder `root` and returns it; `on_job(done, total)` is told of every job that ended."""
    work = corpus_jobs(name, root, spec, seed)
    for done, _ in enumerate(_run_all(work.jobs, processes), start=1):
        on_job(done, len(work.jobs))
    return work.finish()


def _run_all(jobs: tuple[PlacedJob, ...], processes: int) -> Iterator[str]:
    if processes <= 1 or len(jobs) <= 1:
        yield from map(run_job, jobs)
        return
    # An executor, not a `Pool`: that waits for ever where a process dies, and begins another without end where none can
    # start, as under a script that does not guard its main part.
    with ProcessPoolExecutor(min(processes, len(jobs)), multiprocessing.get_context("spawn")) as pool:
        for done in as_completed([pool.submit(run_job, job) for job in jobs]):
            yield done.result()


def _marker(name: str, spec: SyntheticSpec, seed: int) -> dict[str, object]:
    return {"corpus": name, "seed": seed, "fingerprint": spec.fingerprint(name, seed), "spec": spec.model_dump()}


def _is_complete(root: Path, marker: dict[str, object]) -> bool:
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    path = root / MARKER
    if not path.is_file():
        raise ValueError(f"{root} is not empty and no synthetic corpus: give a folder of its own")
    found = json.loads(path.read_text())
    if found["fingerprint"] != marker["fingerprint"]:
        raise ValueError(
            f"{path}: holds {found['corpus']} {found['fingerprint']} (seed {found['seed']}), asked for"
            f" {marker['corpus']} {marker['fingerprint']} (seed {marker['seed']}): remove that folder or give another"
        )
    return True


def _merge_truth(folder: Path, corpus: str, spec: SyntheticSpec, jobs: list[Job]) -> None:
    parts = folder / FOLDER / "parts"
    clips = [clip for job in jobs for clip in read_clips(parts / f"{job.name}.npz")]
    write_clips(folder / FOLDER / "clips.npz", clips)
    shutil.rmtree(parts)
    if corpus in WILD_CORPORA:
        expressions = WILD_CORPORA[corpus].expressions
        write_association(folder, expressions, association(expressions, spec.wild.blend), clips)
