"""Records: what a manifest says of each clip, its columns on disk, and the issues that readers report.

Does not know how a corpus lies on disk or how a frame is decoded.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
