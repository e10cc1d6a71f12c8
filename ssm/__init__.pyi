from .labels import Vocabulary as Vocabulary
from .model import ModelConfig as ModelConfig
from .model import SSMOutput as SSMOutput
from .saved import SSM as SSM
