from .checkpoints import Checkpoints as Checkpoints
from .finishing import TrainingFailed as TrainingFailed
from .finishing import TrainingResult as TrainingResult
from .finishing import download_model as download_model
from .finishing import upload_model as upload_model
from .opening import open_run as open_run
from .running import complete as complete
from .running import train as train
