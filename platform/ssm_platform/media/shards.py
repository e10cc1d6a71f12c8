"""Shards: face crops stored for training, any window of a clip in one range read, never a wrong frame.

A shard `NAME` is three objects below the root of its manifest, written in this order, so the last one tells that the
others are whole:

    NAME.data      the encoded images (JPEG as a rule) of all frames, one clip after another
    NAME.frames    16 bytes of header, then one `FRAME` entry per frame: where, how long, checksum, face, box
    NAME.parquet   a Manifest of the shard's clips, kind "shard": source NAME.data, start = frame number in the shard

The checksum of a frame is seeded with the clip's name, its start and the frame's number, so bytes of another clip,
another frame or another version of the shard fail it as well as damaged ones. Knows storage and records, no labels.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from enum import IntEnum
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ssm_platform.base import PATIENT, DamagedObject, Storage, open_storage
from ssm_platform.media.images import check_indices
from ssm_platform.records import Manifest, Record

FRAME = np.dtype([("offset", "<u8"), ("size", "<u4"), ("crc", "<u4"), ("face", "u1"), ("box", "<f4", (4,))])
"""An entry of NAME.frames; `box` is (x, y, w, h) of the face in the source frame, NaN where there is none."""

_HEADER = b"SSM shard v1\n".ljust(16, b"\0")
_JOINED_GAP = {True: 256 * 1024, False: 16 * 1024}  # unwanted bytes read rather than asking again: remote, local
_SCRATCH = ".scratch"
_READS = 3  # of the same frames where a checksum does not fit
_TABLES = 128  # NAME.frames held by a process; some 100 KiB each

_LOCKS = tuple(threading.Lock() for _ in range(64))


class FaceMark(IntEnum):
    """What is known of the face in a stored frame."""

    NONE = 0  # no face was found; the pixels are the place where it was last, or will be
    FOUND = 1  # found, or bridged over a short gap
    DELIVERED = 2  # the owner's own crop: nobody looked


class StoredFrame(NamedTuple):
    """One frame to store: encoded image, mark and box of its face."""

    data: bytes
    mark: FaceMark
    box: tuple[float, float, float, float] | None = None


class ShardWriter:
    """Collects clips of one shard in a scratch file; `publish` puts it into storage. Use as a context manager."""

    def __init__(self, storage: Storage, name: str) -> None:
        self._storage, self._name = storage, name
        self._handle, scratch = tempfile.mkstemp(suffix=".shard", dir=_scratch_folder(storage))
        os.fchmod(self._handle, 0o644)
        self._scratch = Path(scratch)
        self._entries: list[tuple[int, int, int, int, tuple[float, ...]]] = []
        self._end = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._handle)
        self._scratch.unlink(missing_ok=True)

    @property
    def source(self) -> str:
        """What records of this shard name as their source."""
        return f"{self._name}.data"

    def add(self, clip: str, frames: Iterator[StoredFrame]) -> tuple[int, list[FaceMark]]:
        """Append a clip; returns its start and the mark of each frame. A clip that fails midway leaves no trace."""
        start, begin, marks = len(self._entries), self._end, list[FaceMark]()
        try:
            for frame in frames:
                self._append(frame, _checksum(clip, start, len(marks), frame.data))
                marks.append(frame.mark)
        except BaseException:
            del self._entries[start:]
            self._end = begin
            raise
        return start, marks

    def publish(self, manifest: Manifest) -> None:
        """Store data, frame table and, last, the manifest of the clips."""
        os.ftruncate(self._handle, self._end)
        os.fsync(self._handle)
        table = np.array(self._entries, FRAME)
        self._storage.write_file(self.source, self._scratch)
        self._storage.write(f"{self._name}.frames", _HEADER + table.tobytes())
        self._storage.write(f"{self._name}.parquet", manifest.to_bytes())

    def _append(self, frame: StoredFrame, crc: int) -> None:
        box = frame.box or (np.nan,) * 4
        os.pwrite(self._handle, frame.data, self._end)
        self._entries.append((self._end, len(frame.data), crc, int(frame.mark), tuple(box)))
        self._end += len(frame.data)


class ShardFrames:
    """The frames of a shard's record (a `frames.FrameSource`). StorageError, a ValueError, where they cannot be had:
    `DamagedObject` where another try gives no more."""

    def __init__(self, record: Record, root: str) -> None:
        """A record of kind "shard", and the folder or `s3://` prefix that its shard lies below."""
        self._clip, self._source, self._start, self.length = record.clip, record.source, record.start, record.length
        self._root = root

    @property
    def remote(self) -> bool:
        """Whether a read waits for a network."""
        return "://" in self._root

    def read(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        return self.decode(indices, self.fetch(indices))

    def fetch(self, indices: Sequence[int]) -> list[memoryview]:
        """The encoded frames of the distinct indices, ascending: the part of a read that waits."""
        check_indices(self._key, indices, self.length)
        return self._checked(np.unique(np.asarray(indices, np.int64))) if len(indices) else []

    def decode(self, indices: Sequence[int], fetched: list[memoryview]) -> NDArray[np.uint8]:
        """The frames of what `fetch` gave for these indices."""
        if not len(indices):
            return np.empty((0, 0, 0, 3), np.uint8)
        distinct, places = np.unique(np.asarray(indices, np.int64), return_inverse=True)
        images = [self._decode(number, data) for number, data in zip(distinct, fetched, strict=True)]
        if len({image.shape for image in images}) > 1:
            raise DamagedObject(self._key, f"clip {self._clip!r}: frames of different size")
        return np.stack([images[place] for place in places])

    def close(self) -> None:
        """Nothing stays open here; storage keeps its own."""

    def faces(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Mark (`FaceMark`) and box (x, y, w, h in the source, NaN for none) of every frame of the record."""
        rows = self._rows(np.arange(self.length))
        return rows["face"], rows["box"]

    @property
    def _key(self) -> str:
        return f"{self._root}/{self._source}"

    def _rows(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        with _LOCKS[
            zlib.crc32(self._source.encode()) % len(_LOCKS)
        ]:  # threads that want one table wait for one request
            table = _table(self._root, self._source)
        if self._start + self.length > len(table):
            raise DamagedObject(
                self._key,
                f"clip {self._clip!r} needs frames {self._start}..{self._start + self.length - 1}, "
                f"the shard has {len(table)}",
            )
        rows: NDArray[Any] = table[numbers + self._start]
        return rows

    def _checked(self, numbers: NDArray[np.int64]) -> list[memoryview]:
        """Encoded frames whose checksums fit; what does not fit is read again, table included, a few times."""
        for final in (*[False] * (_READS - 1), True):
            try:
                return self._checked_once(numbers)
            except DamagedObject:
                if final:
                    raise
            _forget(self._root, self._source)
        raise AssertionError

    def _checked_once(self, numbers: NDArray[np.int64]) -> list[memoryview]:
        rows = self._rows(numbers)
        parts = self._parts(rows)
        for number, part, crc in zip(numbers.tolist(), parts, rows["crc"].tolist(), strict=True):
            if _checksum(self._clip, self._start, number, part) != crc:
                what = f"clip {self._clip!r}, frame {number}"
                raise DamagedObject(self._key, f"{what}: checksum does not fit ({_READS} reads)")
        return parts

    def _parts(self, rows: NDArray[Any]) -> list[memoryview]:
        """The bytes of ascending rows, neighbours in one read."""
        offsets, ends = rows["offset"].astype(np.int64), rows["offset"].astype(np.int64) + rows["size"]
        apart = np.flatnonzero(offsets[1:] - ends[:-1] > _JOINED_GAP["://" in self._root]) + 1
        parts: list[memoryview] = []
        for group in np.split(np.arange(len(rows)), apart):
            first, last = int(offsets[group[0]]), int(ends[group[-1]])
            block = memoryview(_storage(self._root).read_range(self._source, first, last - first))
            parts.extend(block[int(offsets[i]) - first : int(ends[i]) - first] for i in group)
        return parts

    def _decode(self, number: int, data: memoryview) -> NDArray[np.uint8]:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
        if image is None:
            raise DamagedObject(self._key, f"clip {self._clip!r}, frame {number}: not an image OpenCV can decode")
        return np.asarray(image, np.uint8)


def _checksum(clip: str, start: int, number: int, data: bytes | memoryview) -> int:
    """Of frame `number` of the clip that begins at `start` in the shard."""
    return zlib.crc32(data, zlib.crc32(f"{clip}\n{start}\n{number}".encode()))


@lru_cache(maxsize=8)
def _storage(root: str) -> Storage:
    return open_storage(root, PATIENT)


@lru_cache(maxsize=_TABLES)
def _table(root: str, source: str) -> NDArray[Any]:
    """The shard's frame table; of a remote one a copy on this machine's disk, which all its processes map."""
    key = f"{source.removesuffix('.data')}.frames"
    copy = _copy(root, key)
    if copy is not None:
        with suppress(OSError, ValueError):  # not there, dropped by somebody in this moment, or torn by a death
            return np.memmap(copy, FRAME, "r", len(_HEADER))
    data = _storage(root).read(key)
    if not data.startswith(_HEADER) or (len(data) - len(_HEADER)) % FRAME.itemsize:
        raise DamagedObject(f"{root}/{key}", "not a frame table of this version")
    if copy is not None and len(data) > len(_HEADER):
        copy.parent.mkdir(parents=True, exist_ok=True)
        part = copy.with_name(f".{copy.name}.{os.getpid()}.{threading.get_ident()}")
        part.write_bytes(data)
        part.replace(copy)
    return np.frombuffer(data, FRAME, offset=len(_HEADER))


def _copy(root: str, key: str) -> Path | None:
    """Where the copy of a remote table lies; a stale one does not fit the checksums of its frames and is dropped."""
    if "://" not in root:
        return None
    name = hashlib.sha256(f"{os.environ.get('AWS_ENDPOINT_URL')}/{root}/{key}".encode()).hexdigest()
    return Path(tempfile.gettempdir()) / f"ssm-{os.getuid()}" / "tables" / name[:2] / name


def _forget(root: str, source: str) -> None:
    """Drops what is known of a shard, so that it is read again."""
    copy = _copy(root, f"{source.removesuffix('.data')}.frames")
    if copy is not None:
        copy.unlink(missing_ok=True)
    _table.cache_clear()
    _storage.cache_clear()


def remove_scratch(storage: Storage) -> None:
    """Remove what writers that were killed left behind; only for when no writer is at work."""
    if "://" not in storage.uri:
        shutil.rmtree(Path(storage.uri) / _SCRATCH, ignore_errors=True)


def _scratch_folder(storage: Storage) -> str | None:
    """Beside the target where that is a folder, so that publishing is a rename."""
    if "://" in storage.uri:
        return None
    folder = Path(storage.uri) / _SCRATCH
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)
