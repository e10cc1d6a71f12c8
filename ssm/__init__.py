"""SSM: joint recognition of facial action units and expressions, as plain PyTorch (arXiv 2604.10541).

Knows no Ray, no files of corpora and no server. The names below load on first use, so that whoever only wants the label
tables does not pay for torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
