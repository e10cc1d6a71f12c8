"""The HTTP application on the replicas' own classes in one process, no cluster: for drills that must see a crash.

`python -c "from local_server import main; main()" MODEL SCRATCH PORT`
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serve.http import create_app
from serve.metrics import IngressMetrics
from serve.model import Inference, Reading, Served
from serve.settings import Limits, Settings
from serve.spool import Spool
from serve.video import Faces, Said, VideoAnalysis


class LocalBackend:
    """Calls instead of handles."""

    def __init__(self, settings: Settings) -> None:
        self._inference, self._settings, self._ready = Inference(settings), settings, False
        self._analysis = VideoAnalysis(settings, self.read, self.describe)

    async def describe(self) -> Served:
        if not self._ready:
            await self._inference.reconfigure({"model": self._settings.model})
            self._ready = True
        return await self._inference.describe()

    async def read(self, clips: NDArray[np.uint8], served: Served | None = None) -> Reading:
        return await self._inference.read(clips, served)

    def analyse(self, paths: list[Path], faces: Faces) -> AsyncIterator[Said]:
        return self._analysis.analyse(paths, faces)


def main() -> None:
    import uvicorn

    model, scratch, port = sys.argv[1:]
    limits = Limits(upload_bytes=20_000_000, images=16, video_s=600, frame_pixels=8_000_000)
    settings = Settings(model=model, scratch=scratch, threads=1, limits=limits)
    backend: Any = LocalBackend(settings)
    app = create_app(settings, backend, IngressMetrics(), Spool(scratch))
    uvicorn.run(app, port=int(port), log_level="error")


if __name__ == "__main__":
    main()
