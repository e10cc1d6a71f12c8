from .exporter import cluster_metrics as cluster_metrics
from .metrics import IngressMetrics as IngressMetrics
from .metrics import ModelMetrics as ModelMetrics
from .metrics import VideoMetrics as VideoMetrics
from .traces import span as span
from .traces import start_traces as start_traces
