from .corpus import IngestSettings as IngestSettings
from .corpus import IngestSummary as IngestSummary
from .corpus import run as run
from .pool import on_ray as on_ray
