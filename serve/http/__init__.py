"""HTTP: routes, who is let in, how answers and errors look, the OpenAPI document.

Knows a `Backend` that reads uploads and tensors; does not know Ray, models or decoders.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
