"""`serve.local` behind uvicorn, with the limits of the drill: `python local_server.py MODEL SCRATCH PORT`."""

import sys

import uvicorn

from serve.local import local_app
from serve.settings import Limits, Settings

if __name__ == "__main__":
    model, scratch, port = sys.argv[1:]
    limits = Limits(upload_bytes=20_000_000, images=16, video_s=600, frame_pixels=8_000_000)
    uvicorn.run(
        local_app(Settings(model=model, scratch=scratch, threads=1, limits=limits)), port=int(port), log_level="error"
    )
