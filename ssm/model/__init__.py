"""The model: backbone with shared/private experts, TSP, DPM, temporal parts, heads (method, sections 2 to 5).

`network` puts the parts together. Knows no file, device, rank, loss or corpus: it is built from a configuration and
given tensors.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
