"""The Open Inference Protocol: bytes to arrays and back. Pure: no HTTP, no Ray, no model."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
