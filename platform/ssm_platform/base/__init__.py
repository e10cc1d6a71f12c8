"""Base: storage (folder or S3), overrides of configurations, hashes, the machine, colours of figures.

What every other room may lean on. Does not know faces, labels or Ray.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
