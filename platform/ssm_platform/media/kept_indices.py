"""Indices of a corpus's videos, kept beside them: a process that opens a video reads its index, not every packet again.

An index lies in `.ssm/indices` below the corpus's root, in this machine's scratch where that cannot be written, named
by all that it depends on: the file's name, size and time, FFmpeg's version and the code that indexes. One that is torn
or damaged is none. Only videos of corpora are kept, never what is handed in to be read.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cache, lru_cache
from pathlib import Path

import numpy as np

from ssm_platform.media import video_index
from ssm_platform.media.errors import UnreadableVideo
from ssm_platform.media.video_index import Access, VideoIndex, VideoInfo, index_video

_DIGEST = 32  # bytes at the head of a kept index, over those that follow


def corpus_index(path: Path, root: Path) -> VideoIndex:
    """`index_video` of a file below `root`, from what was kept where nothing changed. Raises as that does."""
    try:
        state = os.stat(path)
    except OSError as error:
        raise UnreadableVideo(path, error.strerror or "cannot be opened") from error
    return _index(path, root, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=2048)
def _index(path: Path, root: Path, size: int, modified: int) -> VideoIndex:
    facts = json.dumps([os.path.relpath(path, root), size, modified, _code()])
    key = hashlib.sha256(facts.encode()).hexdigest()
    for place in _places(root):
        if (kept := _read(place / key[:2] / key, path)) is not None:
            return kept
    index = index_video(path)
    _keep(index, root, key)
    return index


@cache
def _code() -> str:
    """The digest of what indexes."""
    import av

    source = Path(video_index.__file__).read_bytes()
    return hashlib.sha256(source + repr(sorted(av.library_versions.items())).encode()).hexdigest()


def _places(root: Path) -> Iterator[Path]:
    yield root / ".ssm" / "indices"
    name = hashlib.sha256(os.fspath(root).encode()).hexdigest()[:16]
    yield Path(tempfile.gettempdir()) / f"ssm-{os.getuid()}" / "indices" / name


def _read(file: Path, path: Path) -> VideoIndex | None:
    """The index in `file`; None where there is none, or not a whole one."""
    try:
        data = file.read_bytes()
    except OSError:
        return None
    body = data[_DIGEST:]
    if hashlib.sha256(body).digest() != data[:_DIGEST]:
        return None
    head, _, numbers = body.partition(b"\n")
    about = json.loads(head)
    info = about["info"]
    info |= {"path": os.fspath(path), "access": Access(info["access"]), "coded": tuple(info["coded"])}
    info["notes"] = tuple(info["notes"])
    times, keys = np.split(np.frombuffer(numbers, np.int64), [info["frames"]])
    return VideoIndex(VideoInfo(**info), times, keys, about["time_base"])


def _keep(index: VideoIndex, root: Path, key: str) -> None:
    """Keeps an index in the first place that takes it; where none does, it costs time and nothing else."""
    info = asdict(replace(index.info, path="")) | {"access": index.info.access.value}
    head = json.dumps({"info": info, "time_base": index.time_base}).encode()
    body = head + b"\n" + index.times.astype(np.int64).tobytes() + index.keys.astype(np.int64).tobytes()
    for place in _places(root):
        file = place / key[:2] / key
        scratch = file.with_name(f".{key}.{os.getpid()}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            scratch.write_bytes(hashlib.sha256(body).digest() + body)
            scratch.replace(file)
        except OSError:
            with suppress(OSError):
                scratch.unlink()
            continue
        return
