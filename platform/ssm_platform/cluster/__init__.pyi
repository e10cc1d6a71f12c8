from .joining import ClusterSize as ClusterSize
from .joining import joined as joined
from .manifests import ClusterSettings as ClusterSettings
from .manifests import write_all as write_all
