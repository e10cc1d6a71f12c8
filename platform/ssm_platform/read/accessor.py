"""`table.ssm`: plots and reasons of a table that `Reader.read` gave. Importing this module registers it with pandas."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

from ssm.labels import Vocabulary
from ssm_platform.read.timeline import timeline

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@pd.api.extensions.register_dataframe_accessor("ssm")
class SSMAccessor:
    """What can be asked of a table beside its numbers."""

    def __init__(self, table: pd.DataFrame) -> None:
        self._table = table

    @property
    def vocabulary(self) -> Vocabulary:
        """The action units and expressions of its columns. ValueError where the table has lost its attributes."""
        if "model" not in self._table.attrs:
            raise ValueError("the table has no .attrs of a Reader: use the table that `read` gave, or a part of it")
        model = self._table.attrs["model"]
        return Vocabulary(aus=tuple(model["aus"]), expressions=tuple(model["expressions"]))

    @property
    def notice(self) -> str:
        """What the numbers are, and are not."""
        return str(self._table.attrs["notice"])

    def plot(self, face_id: int | None = None) -> Figure:
        """Timelines of a face (None: the one in most frames). ValueError where it is in no frame.

        Of a table of several inputs, choose one first: `table[table.input == "a.mp4"].ssm.plot()`.
        """
        vocabulary = self.vocabulary
        faces = self._table[self._table["success"] == 1]
        if "input" in faces and faces["input"].nunique() > 1:
            raise ValueError(f"the table holds {faces['input'].nunique()} inputs: plot the rows of one")
        if face_id is None and len(faces):
            face_id = int(faces["face_id"].mode().iloc[0])
        rows = faces[faces["face_id"] == face_id]
        if not len(rows):
            raise ValueError(f"no frame has {'a face' if face_id is None else f'face {face_id}'}")
        return timeline(rows, vocabulary, f"face {face_id}")

    def why(self) -> pd.DataFrame:
        """A row per window and expression: its probability, and what each AU adds to its logit by the learned map."""
        return pd.DataFrame([row for window in self._table.attrs["windows"] for row in _reasons(window)])


def _reasons(window: dict[str, Any]) -> list[dict[str, Any]]:
    place = {name: value for name, value in window.items() if name not in ("expression", "why")}
    return [
        {**place, "name": name, "probability": probability, **window["why"].get(name, {})}
        for name, probability in window["expression"].items()
    ]
