"""Inference: a saved model applied to clips or whole sequences, and what its answer rests on.

Does not know files of video, faces or servers.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
