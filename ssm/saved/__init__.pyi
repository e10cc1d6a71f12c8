from .facts import ModelFacts as ModelFacts
from .folder import CONFIG as CONFIG
from .folder import WEIGHTS as WEIGHTS
from .folder import fetch as fetch
from .folder import read_config as read_config
from .folder import read_tensors as read_tensors
from .pretrained import SSM as SSM
from .released import import_released as import_released
