"""Decoding where it can be killed: a process for each upload, with limits on its CPU, its memory and its silence.

    Sandbox (in a replica)  --job-->  forker (one process, no threads, no secrets)  --fork-->  child (one upload)
                            <--------------- info, then faces, or a refusal ----------------------

The child runs the platform's one path for pixels and sends faces, never pixels of frames. What comes from it is
data (JSON and crops), never pickles: a decoder that was taken over can say nothing but wrong numbers. Knows no HTTP.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
