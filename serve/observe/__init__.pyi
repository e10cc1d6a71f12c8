from .exporter import node_metrics as node_metrics
from .metrics import IngressMetrics as IngressMetrics
from .metrics import ModelMetrics as ModelMetrics
from .metrics import VideoMetrics as VideoMetrics
