"""Saved models: a folder of safetensors, configuration and card; and released checkpoints brought into that form.

`SSM`, the network with `from_pretrained` and `save_pretrained`, lives here. Nothing is unpickled. Does not know
training or serving.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
