"""Read: from a video or pictures that somebody hands in to rows of a table: faces, clips, answers, votes.

One path for command line, notebook and HTTP. Does not know HTTP or training.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
