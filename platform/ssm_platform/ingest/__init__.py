"""Ingest: a corpus's records to shards of face crops, resumable, with quarantine.

Does not know owners' layouts; Ray only in `pool`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
