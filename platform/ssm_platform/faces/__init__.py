"""Faces: detectors, tracks through a video, the main face, the crop.

Does not know labels, corpora or what the crop is for.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
