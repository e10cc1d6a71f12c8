"""Storage: bytes by key, in a local folder or below an `s3://bucket/prefix`; the only place that knows which it is.

`protocol` says what a storage promises, `local` and `s3` keep it, `retrying` is how long S3 is asked, `places` opens.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
