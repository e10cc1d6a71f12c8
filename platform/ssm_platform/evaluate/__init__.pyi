from .assessment import Outcome as Outcome
from .assessment import assess as assess
from .assessment import run_config as run_config
from .fitting import Fitted as Fitted
from .fitting import fit_model as fit_model
from .groups import read_people as read_people
from .scores import EvaluationProtocol as EvaluationProtocol
