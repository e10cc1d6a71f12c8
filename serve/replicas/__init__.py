"""What works behind the routes: model replicas, video replicas, and the calls between them.

Plain classes that Serve runs (`serve.deployments`); they do not know HTTP.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
