from .codec import decode as decode
from .codec import encode as encode
from .messages import InferenceRequest as InferenceRequest
from .messages import ProtocolError as ProtocolError
from .rpc import MESSAGES as MESSAGES
from .rpc import SERVICE as SERVICE
