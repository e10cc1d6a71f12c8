from .apart import blocks_of as blocks_of
from .apart import executed as executed
from .apart import rows_of as rows_of
from .joining import ClusterSize as ClusterSize
from .joining import joined as joined
from .joining import will_join as will_join
from .manifests import write_all as write_all
from .settings import ClusterSettings as ClusterSettings
