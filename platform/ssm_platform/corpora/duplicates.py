"""Records with identical content under different names: copies, which across parts are leaks that no list shows.

Compares bytes, not looks: a video file whole, a frame folder by its first, middle and last image, a line of typed
pixels by these. Opt-in, because it reads them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from ssm_platform.media import open_frames
from ssm_platform.records import Issue, Manifest, Record


def same_content(manifest: Manifest) -> Iterator[Issue]:
    """One issue for each record that repeats an earlier one: a leak where their parts differ, else a note."""
    seen: dict[bytes, Record] = {}
    for record in manifest:
        first = seen.setdefault(_digest(Path(manifest.root), record), record)
        if first is not record:
            rule = f"a clip's content is its own; {first.clip} (part {first.part}) has the same"
            leak = record.part != first.part
            yield Issue(record.source, None, record.clip, rule, 1, "leak" if leak else "note")


def _digest(root: Path, record: Record) -> bytes:
    if record.kind == "pixels":  # a line of a large file: its pixels, not the file
        return hashlib.blake2b(open_frames(record, root).read([0]).tobytes(), digest_size=16).digest()
    digest = hashlib.blake2b(f"{record.start} {record.length}".encode(), digest_size=16)
    files = record.files or ("",)
    for name in dict.fromkeys((files[0], files[len(files) // 2], files[-1])):
        with (root / record.source / name).open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.digest()
