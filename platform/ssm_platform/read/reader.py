"""One call from a face to a table: `Reader`. What `from ssm_platform import Reader` gives.

    reader = Reader("latest")                         # alias, version, folder or hub id
    table = reader.read("clip.mp4")                   # a DataFrame; columns as in every table, facts in table.attrs
    table = reader.read(["a.mp4", photo, array])      # several inputs: one table with a column `input`
    for row in reader.stream("clip.mp4"): ...         # dicts by column, as they are ready, in bounded memory
    table.ssm.plot(); table.ssm.why()                 # timelines of a face; what each AU adds to each expression
    reader.where("clip.mp4")                          # face -> picture of where each AU was looked for, if it knows

Paths are videos or pictures; arrays (uint8 RGB, a picture or a clip) and PIL images are read as they are. No Ray.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ssm_platform.faces import decided
from ssm_platform.media import ArrayFrames, Pictures, Video, is_frames, open_array, open_input
from ssm_platform.models import DEFAULT, ModelDescription, locate
from ssm_platform.read.heat_maps import HeatMaps
from ssm_platform.read.model_reader import ModelReader
from ssm_platform.read.provenance import provenance
from ssm_platform.read.rows import AnalysisOptions, read_opened
from ssm_platform.read.tables import record, to_frame
from ssm_platform.read.windows import Row, Window

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Readable = Any
"""A path (str or Path) of a video or picture, a uint8 RGB array [H, W, 3] or [N, H, W, 3], or a PIL image."""


class Reader:
    """A model ready to read videos, pictures and arrays. Not for use by several threads at once."""

    def __init__(
        self,
        model: str | Path = DEFAULT,
        *,
        registry: str | None = None,
        device: str = "auto",
        batch: int = 8,
        threads: int | None = None,
        **options: Any,
    ) -> None:
        """`options`: fields of `AnalysisOptions`, such as `faces="main"` or `uncertainty=True`. ValueError names what
        is absent or wrong; `batch`: clips in one forward pass, `threads`: of torch (None: every core that is ours).
        """
        self._name, self._batch = str(model), batch
        self.options = _settled(AnalysisOptions(**options))
        folder = locate(self._name, registry)
        self._reader = ModelReader(folder, device, threads=threads or len(os.sched_getaffinity(0)))

    @property
    def model(self) -> ModelDescription:
        """What the model takes and what its answers mean."""
        return self._reader.description

    def read(self, inputs: Readable | Sequence[Readable], *, rate: float | None = None, **options: Any) -> pd.DataFrame:
        """A row per face and frame. `rate`: frames a second of arrays that are clips; `options` as for the reader.

        Of a list or tuple every input is read, into one table with a column `input`, its facts in a list.
        """
        if not isinstance(inputs, list | tuple):
            table, facts = self._table(inputs, rate, options)
        else:
            table, facts = self._tables(inputs, rate, options)
        from ssm_platform.read import accessor  # noqa: F401 makes `table.ssm`

        table.attrs.update(facts)
        return table

    def stream(self, one: Readable, *, rate: float | None = None, **options: Any) -> Iterator[dict[str, Any]]:
        """The rows of one input by column name, as they are ready; memory does not grow with its length."""
        chosen = self._chosen(options)
        shown = self.model.shown(chosen.expressions, chosen.uncertainty)
        for result in self._results(self._open(one, rate, chosen), chosen):
            if isinstance(result, Row):
                yield record(result, shown.vocabulary, shown.evidence)

    def where(
        self, one: Readable, *, rate: float | None = None, blur: bool = False, **options: Any
    ) -> dict[int, Figure]:
        """Per face a picture of where each AU was looked for, over crops of the input; `blur` hides the faces.

        ValueError of a model that looks at no places.
        """
        chosen, maps = self._chosen(options), HeatMaps(self._reader, blur)
        self.model.shown(chosen.expressions, where=True)
        for _ in read_opened(self._open(one, rate, chosen), self._reader, chosen, self._batch, maps.see):
            pass
        return maps.pictures()

    def plot(self, table: pd.DataFrame, face_id: int | None = None) -> Figure:
        """AU timelines of a face with the expression above them; None: the face in most frames."""
        from ssm_platform.read.accessor import SSMAccessor

        return SSMAccessor(table).plot(face_id)

    def _table(self, one: Readable, rate: float | None, options: dict[str, Any]) -> tuple[pd.DataFrame, dict[str, Any]]:
        chosen = self._chosen(options)
        shown = self.model.shown(chosen.expressions, chosen.uncertainty)
        source = self._open(one, rate, chosen)
        rows, windows = list[Row](), list[Window]()
        for result in self._results(source, chosen):
            if isinstance(result, Row):
                rows.append(result)
            else:
                windows.append(result)
        facts = provenance(source.facts, shown, self._name, chosen)
        table = to_frame(rows, shown.vocabulary, shown.evidence)
        return table, {**facts, "windows": [_plain(window, shown) for window in windows]}

    def _tables(
        self, inputs: Sequence[Readable], rate: float | None, options: dict[str, Any]
    ) -> tuple[pd.DataFrame, dict[str, Any]]:
        import pandas as pd

        if not inputs:
            raise ValueError("there are no inputs to read")
        names = [f"[{number}]" if is_frames(one) else str(one) for number, one in enumerate(inputs)]
        found = [self._table(one, rate, options) for one in inputs]
        tables = [table.assign(input=name) for name, (table, _) in zip(names, found, strict=True)]
        whole = pd.concat(tables, ignore_index=True)
        facts = dict(found[0][1])
        facts["video"] = {name: one["video"] for name, (_, one) in zip(names, found, strict=True)}
        facts["windows"] = [
            {"input": name, **window} for name, (_, one) in zip(names, found, strict=True) for window in one["windows"]
        ]
        return whole[["input", *tables[0].columns[:-1]]], facts

    def _chosen(self, options: dict[str, Any]) -> AnalysisOptions:
        if not options:
            return self.options
        return _settled(AnalysisOptions.model_validate({**dict(self.options), **options}))

    def _open(self, one: Readable, rate: float | None, options: AnalysisOptions) -> Video | Pictures | ArrayFrames:
        if is_frames(one):
            return open_array(one, rate)
        if not isinstance(one, str | os.PathLike):
            raise ValueError(f"an input is a path, an array or a PIL image, not {type(one).__name__}")
        return open_input([Path(one).expanduser()], options.decoder, options.limits)

    def _results(self, source: Video | Pictures | ArrayFrames, options: AnalysisOptions) -> Iterator[Row | Window]:
        return read_opened(source, self._reader, options, self._batch)


def _settled(options: AnalysisOptions) -> AnalysisOptions:
    """The same with the detector that will be used, so that attributes name it."""
    return options.model_copy(update={"detection": decided(options.detection)})


def _plain(window: Window, model: ModelDescription) -> dict[str, Any]:
    """A window as plain values: attributes of a table are copied and compared by pandas."""
    names, codes = model.vocabulary.expressions, model.vocabulary.au_codes
    reasons = [] if window.why is None else window.why.tolist()
    return {
        "face_id": window.face_id,
        "start": window.start,
        "frames": window.frames,
        "expression": dict(zip(names, _rounded(window.expression.tolist()), strict=True)),
        "why": {name: dict(zip(codes, _rounded(row), strict=True)) for name, row in zip(names, reasons, strict=False)},
    }


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 5) for value in values]
