"""How AUs are read off a clip's frames: one file a reader, one row each in `table.READERS` (methods).

A reader takes frame features, texts and the layer over time, and gives an `AUReading`. Knows no backbone and no loss.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
