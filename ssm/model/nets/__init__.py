"""What is added to timm's networks (`plain_cnn`), changed in them (the last block), and done to their first weights."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
