from .checkpoints import Checkpoints as Checkpoints
from .trainer import TrainingFailed as TrainingFailed
from .trainer import TrainingResult as TrainingResult
from .trainer import complete as complete
from .trainer import open_run as open_run
from .trainer import upload_model as upload_model
