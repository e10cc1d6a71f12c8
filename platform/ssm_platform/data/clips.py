"""From a row of the plan to pixels and labels: one plain class, the same for training, evaluation and any worker count.

A clip is decoded, warped by its own seed (training) or centred (evaluation), and laid beside dense masked labels in the
columns of the model's vocabulary. A row whose pixels are damaged keeps its place, with black frames and every mask
False: order, counts and the other rows of the batch stay what the plan says, no loss is taken from it, and its column
`problem` says why. `Quarantine` counts those and refuses the job past a ceiling. Where storage is away instead, reading
raises: the same rows read later are the same pixels. Knows no Ray.

Columns of a batch (all dense, none ever null):
    row int64 N, task int8 N, corpus int16 N, record int32 N, start int32 N      as in the plan; row `PADDING`: no
                          clip, black and without labels, only there so that all workers have as many
    sample int64 N        identity of the clip really read, for `order.OrderHash`; `UNREAD` where it was not
    clip uint8 N T S S 3  (not where frames are shipped encoded, see `encoded`)
    fe_label int64 N      column of the class; fe_classes uint8 N E: the corpus's classes (0 everywhere in AU rows)
    fe_shares float32 N E  only where a corpus has soft labels: the distribution over classes (hard rows: one class)
    distinct int64 N      frames that lead the clip before its last one repeats (T where none does)
    au_target uint8 N T A; au_mask uint8 N T A: 1 where the target is known (0 everywhere in rows of other tasks)
    va_target float32 N T 2; va_mask uint8 N T 2: likewise, where the vocabulary has affect
    problem str N         empty, or why the pixels are missing

Legend: N rows, T frames, S side in pixels, A action units, E expressions of the vocabulary.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from ssm.interface import Preprocessing, center
from ssm.labels import Vocabulary
from ssm.training import PADDING, Augmentation, augment
from ssm_platform.base import UNREAD, may_return, sample_ids, text_key
from ssm_platform.data.plan import AU, FE, VA
from ssm_platform.data.sampling import Window, segment_indices, window_indices
from ssm_platform.media import DEFAULT_DECODER, FrameSource, ShardFrames, open_frames
from ssm_platform.records import UNKNOWN, Manifest

if TYPE_CHECKING:  # loading torch costs a decode process seconds and hundreds of MB, and it needs none
    from torch import Tensor

    from ssm.training import AUBatch, FEBatch, VABatch

Columns = dict[str, NDArray[Any]]
ReadFrames = Callable[[], Any]  # frames T H W 3, or the files of them
Reading = tuple[Window, ReadFrames]

_OPEN_SOURCES = 8  # long videos of AU corpora are read again and again; each open reader holds some MB
_AHEAD = 8  # rows whose bytes are on their way over a network while one is decoded
_REASONS = 3  # problems quoted in an error


class ClipConfig(BaseModel):
    """What a clip is, besides its labels."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    frames: int = Field(default=16, ge=1, le=1024, description="frames T of a clip")
    preprocessing: Preprocessing = Field(default_factory=Preprocessing, description="geometry, shared with serving")
    augmentation: tuple[Augmentation | None, ...] | None = Field(
        default=None, description="random warp per manifest, in their order; null: evaluation, nothing is random"
    )
    decoder: str = Field(default=DEFAULT_DECODER, description="video decoder: decord, av or torchcodec")
    encoded: bool = Field(default=False, description="ship frames as they are stored in shards (`encoded`)")

    def warp_of(self, corpus: int) -> Augmentation | None:
        """The random warp of a manifest's clips, None where nothing of them is random."""
        return None if self.augmentation is None else self.augmentation[corpus]

    def warped(self, frames: NDArray[np.uint8], corpus: int, seed: int) -> NDArray[np.uint8]:
        """The frames as the model gets them, T S S 3."""
        spec = self.warp_of(corpus)
        if spec is None:
            return center(frames, self.preprocessing)
        return augment(frames, spec, self.preprocessing.image_size, seed)


class TooManyUnreadable(ValueError):
    """More clips than allowed could not be read; the message names the first reasons."""


class Batches(NamedTuple):
    """The sides of a batch; None where no row is of that task."""

    fe: FEBatch | None
    au: AUBatch | None
    va: VABatch | None = None


class ClipReader:
    """Reads rows of a plan over `manifests`. ValueError where a label or a manifest does not fit `vocabulary`."""

    def __init__(self, manifests: Sequence[Manifest], vocabulary: Vocabulary, config: ClipConfig) -> None:
        if config.augmentation is not None and len(config.augmentation) != len(manifests):
            raise ValueError(f"{len(config.augmentation)} augmentations for {len(manifests)} manifests: one for each")
        for manifest in manifests if config.encoded else ():
            if others := sorted(set(manifest.column("kind").unique().to_pylist()) - {"shard"}):
                raise ValueError(f"corpus {manifest.corpus!r}: clips of kind {others} cannot be shipped as files")
        self._manifests = tuple(manifests)
        self._vocabulary = vocabulary
        self.config = config
        self._columns = [_label_columns(manifest, vocabulary) for manifest in manifests]
        self._open: OrderedDict[tuple[int, int], FrameSource] = OrderedDict()

    def __reduce__(self) -> tuple[type[ClipReader], tuple[Any, ...]]:
        return ClipReader, (self._manifests, self._vocabulary, self.config)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row of the columns, problem texts aside."""
        none = {name: np.zeros(1, np.int64) for name in ("row", "task", "corpus", "record", "start", "seed")}
        pixels = self.config.frames * self.config.preprocessing.image_size**2 * 3 if self.config.encoded else 0
        return pixels + sum(column.nbytes for column in self._blank(none).values())  # what is encoded is smaller

    def read(self, rows: Mapping[str, NDArray[Any]]) -> Columns:
        """The columns (see above) of these rows of a plan, in their order. StorageError or OSError for an outage."""
        out, seeds = self._blank(rows), rows["seed"].tolist()
        if "clip" in out:
            out["clip"][out["row"] == PADDING] = 0
        places = np.flatnonzero(out["row"] != PADDING).tolist()
        ahead: deque[Reading] = deque()
        for number, place in enumerate(places):
            for coming in places[number + len(ahead) : number + _AHEAD]:
                ahead.append(self._begun(out, coming, seeds[coming]))
            self._read_one(out, place, seeds[place], *ahead.popleft())
        return out

    def _blank(self, rows: Mapping[str, NDArray[Any]]) -> Columns:
        count, frames, size = len(rows["row"]), self.config.frames, self.config.preprocessing.image_size
        aus, classes = len(self._vocabulary.aus), len(self._vocabulary.expressions)
        out: Columns = {name: np.array(rows[name]) for name in ("row", "task", "corpus", "record", "start")}
        out["sample"] = np.full(count, UNREAD, np.int64)
        if self.config.encoded:
            out |= {"jpeg": np.full(count, b"", object), "sizes": np.zeros((count, frames), np.int32)}
            out |= {"frame": np.zeros((count, frames), np.int16), "seed": np.array(rows["seed"])}
        else:
            out["clip"] = np.empty((count, frames, size, size, 3), np.uint8)
        out["problem"] = np.full(count, "", object)
        out["distinct"] = np.full(count, frames, np.int64)
        if any(manifest.soft for manifest in self._manifests):
            out["fe_shares"] = np.zeros((count, classes), np.float32)
        if classes:
            out |= {"fe_label": np.zeros(count, np.int64), "fe_classes": np.zeros((count, classes), np.uint8)}
        if aus:
            out |= {name: np.zeros((count, frames, aus), np.uint8) for name in ("au_target", "au_mask")}
        if affect := len(self._vocabulary.affect):
            out["va_target"] = np.zeros((count, frames, affect), np.float32)
            out["va_mask"] = np.zeros((count, frames, affect), np.uint8)
        return out

    def _begun(self, out: Columns, place: int, seed: int) -> Reading:
        """A row whose bytes are on their way, where they come over a network; other rows are read when it is their
        turn, since opening one may close another."""
        task, corpus, record, start = (int(out[name][place]) for name in ("task", "corpus", "record", "start"))
        manifest = self._manifests[corpus]
        window = self._window(task, corpus, int(manifest.lengths[record]), start, seed)
        indices = np.unique(window.indices).tolist()  # a repeated frame is read and warped once
        if self.config.encoded:
            stored = cast(ShardFrames, self._source(corpus, record))
            coming = self._fetching.submit(stored.fetch, indices)
            return window, coming.result
        if "://" not in manifest.root or not isinstance(source := self._source(corpus, record), ShardFrames):
            return window, lambda: self._source(corpus, record).read(indices)
        fetched = self._fetching.submit(source.fetch, indices)
        return window, lambda: source.decode(indices, fetched.result())

    @cached_property
    def _fetching(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_AHEAD, thread_name_prefix="fetching")

    def _read_one(self, out: Columns, place: int, seed: int, window: Window, frames_of: ReadFrames) -> None:
        task, corpus, record, start = (int(out[name][place]) for name in ("task", "corpus", "record", "start"))
        manifest = self._manifests[corpus]
        name = manifest.column("clip")[record].as_py()
        distinct, places = np.unique(window.indices, return_inverse=True)
        try:
            frames = frames_of()
        except (ValueError, OSError) as error:
            if may_return(error):
                raise
            out["problem"][place] = f"{manifest.corpus}: clip {name!r}: {error}"
            if "clip" in out:
                out["clip"][place] = 0
            return
        key = np.array([text_key(f"{manifest.corpus}/{name}")], np.int64)
        out["sample"][place] = sample_ids(key, np.array([start], np.int32))[0]
        if self.config.encoded:
            out["jpeg"][place] = b"".join(frames)
            out["sizes"][place, : len(frames)], out["frame"][place] = [len(frame) for frame in frames], places
        else:
            out["clip"][place] = self.config.warped(frames, corpus, seed)[places]
        if task == FE:
            out["distinct"][place] = len(distinct)
            self._label_clip(out, place, corpus, record)
        else:
            self._label_frames(out, place, window)

    def _label_clip(self, out: Columns, place: int, corpus: int, record: int) -> None:
        manifest, columns = self._manifests[corpus], self._columns[corpus]
        out["fe_label"][place] = columns[manifest.expression_columns[record]]
        out["fe_classes"][place, columns] = 1
        if "fe_shares" in out:
            out["fe_shares"][place, columns] = self._shares(manifest, record)

    def _label_frames(self, out: Columns, place: int, window: Window) -> None:
        """Targets and mask of a row of a frame-level task."""
        task, corpus, record, start = (int(out[name][place]) for name in ("task", "corpus", "record", "start"))
        manifest, columns, inside = self._manifests[corpus], self._columns[corpus], int(window.inside.sum())
        if task == VA:
            affect = manifest.va_labels(record, start, inside)
            out["va_target"][place, : len(affect), columns] = np.nan_to_num(affect).T
            out["va_mask"][place, : len(affect), columns] = ~np.isnan(affect).T
            return
        labels = manifest.au_labels(record, start, inside)
        out["au_target"][place, : len(labels), columns] = (labels > 0).T
        out["au_mask"][place, : len(labels), columns] = (labels != UNKNOWN).T

    def _shares(self, manifest: Manifest, record: int) -> NDArray[np.float32]:
        """The distribution over the corpus's classes; all on one where the label is hard."""
        shares = manifest.distribution(record)
        if shares is None:
            shares = np.zeros(len(manifest.labels.expressions), np.float32)
            shares[manifest.expression_columns[record]] = 1
        return shares

    def _window(self, task: int, corpus: int, length: int, start: int, seed: int) -> Window:
        if task != FE:
            return window_indices(start, length, self.config.frames)
        chosen = segment_indices(length, self.config.frames, None if self.config.warp_of(corpus) is None else seed)
        return Window(chosen, np.ones(len(chosen), bool))

    def _source(self, corpus: int, record: int) -> FrameSource:
        """An open source; the least recently used one is closed past a few."""
        key = (corpus, record)
        if key not in self._open:
            manifest = self._manifests[corpus]
            self._open[key] = open_frames(manifest[record], manifest.root, self.config.decoder)
            if len(self._open) > _OPEN_SOURCES:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(key)
        return self._open[key]


class Quarantine:
    """Counts rows without pixels. `TooManyUnreadable` past `allowance` rows that are also past the share `ceiling`."""

    def __init__(self, ceiling: float = 0.01, allowance: int = 10) -> None:
        self._ceiling = ceiling
        self._allowance = allowance
        self.seen = 0
        self.problems: dict[str, int] = {}

    @property
    def unreadable(self) -> int:
        """Rows without pixels so far."""
        return sum(self.problems.values())

    def check(self, columns: Columns) -> list[str]:
        """Take in a batch; returns the problems not met before, for a log."""
        self.seen += int((columns["row"] != PADDING).sum())
        met = [str(problem) for problem in columns["problem"] if problem]
        new = [problem for problem in dict.fromkeys(met) if problem not in self.problems]
        for problem in met:
            self.problems[problem] = self.problems.get(problem, 0) + 1
        if self.unreadable > max(self._allowance, self._ceiling * self.seen):
            raise TooManyUnreadable(
                f"{self.unreadable} of {self.seen} clips could not be read, more than the ceiling of "
                f"{self._ceiling:.2%} and {self._allowance}: {'; '.join(list(self.problems)[:_REASONS])}"
            )
        return new


def to_batches(columns: Columns) -> Batches:
    """The typed batches of these columns, copied: what Ray hands out is read-only."""
    fe, au, va = (np.flatnonzero(columns["task"] == task) for task in (FE, AU, VA))
    return Batches(
        _fe_batch(columns, fe) if len(fe) else None,
        _au_batch(columns, au) if len(au) else None,
        _va_batch(columns, va) if len(va) else None,
    )


def _fe_batch(columns: Columns, rows: NDArray[np.int64]) -> FEBatch:
    from torch import from_numpy

    from ssm.training import FEBatch

    return FEBatch(
        clips=_pixels(columns, rows),
        labels=from_numpy(columns["fe_label"][rows]),
        class_mask=from_numpy(columns["fe_classes"][rows]).bool(),
        row_ids=from_numpy(columns["row"][rows]),
        shares=from_numpy(columns["fe_shares"][rows]) if "fe_shares" in columns else None,
        distinct=_distinct(columns, rows),
    )


def _pixels(columns: Columns, rows: NDArray[np.int64]) -> Tensor:
    """The clips of some rows, which may lie on a GPU already (`encoded`)."""
    import torch

    clips: Any = columns["clip"]
    return clips[torch.from_numpy(rows).to(clips.device)] if torch.is_tensor(clips) else torch.from_numpy(clips[rows])


def _distinct(columns: Columns, rows: NDArray[np.int64]) -> Tensor | None:
    """Leading frames of each clip that differ; None where no clip repeats one."""
    from torch import from_numpy

    counts = columns["distinct"][rows]
    return from_numpy(counts) if (counts < columns["clip"].shape[1]).any() else None


def _au_batch(columns: Columns, rows: NDArray[np.int64]) -> AUBatch:
    from torch import from_numpy

    from ssm.training import AUBatch

    return AUBatch(
        clips=_pixels(columns, rows),
        targets=from_numpy(columns["au_target"][rows]).float(),
        mask=from_numpy(columns["au_mask"][rows]).bool(),
        row_ids=from_numpy(columns["row"][rows]),
    )


def _va_batch(columns: Columns, rows: NDArray[np.int64]) -> VABatch:
    from torch import from_numpy

    from ssm.training import VABatch

    return VABatch(
        clips=_pixels(columns, rows),
        targets=from_numpy(columns["va_target"][rows]),
        mask=from_numpy(columns["va_mask"][rows]).bool(),
        row_ids=from_numpy(columns["row"][rows]),
    )


def _label_columns(manifest: Manifest, vocabulary: Vocabulary) -> NDArray[np.int64]:
    """The vocabulary's columns of a corpus's labels, in the corpus's order."""
    labels = manifest.labels
    if manifest.task == "va":
        return np.array(vocabulary.affect_columns(labels.affect), np.int64)
    chosen = (
        vocabulary.au_columns(labels.aus)
        if manifest.task == "au"
        else vocabulary.expression_columns(labels.expressions)
    )
    return np.array(chosen, np.int64)
