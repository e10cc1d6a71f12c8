"""Names of clips that a gap in their frame numbers has cut: `clip#0`, `clip#1`, ... are one sequence, `clip`.

Only what stands behind the last `#` and is a number counts: owners' names may hold a `#` themselves.
"""

from __future__ import annotations

import re

import pyarrow as pa
import pyarrow.compute as pc

_PART = "#[0-9]+$"


def part_name(clip: str, number: int) -> str:
    """The name of part `number`, from 0, of a clip that was cut."""
    return f"{clip}#{number}"


def sequence_of(clip: str) -> str:
    """The clip's name before any cut: parts of one sequence share it."""
    return re.sub(_PART, "", clip)


def sequences_of(clips: pa.Array) -> pa.Array:
    """The same of a column of names."""
    return pc.replace_substring_regex(clips, _PART, "")
