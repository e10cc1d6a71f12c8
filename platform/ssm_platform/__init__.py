"""The Ray side of SSM: corpora, plans, clips (Data), training (Train), search (Tune), evaluation, registry, reports.

`from ssm_platform import Reader` reads videos in three lines; everything else is imported from its room.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
