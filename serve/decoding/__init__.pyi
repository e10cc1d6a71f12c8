from .messages import CameraJob as CameraJob
from .messages import Job as Job
from .sandbox import Camera as Camera
from .sandbox import Looked as Looked
from .sandbox import Sandbox as Sandbox
from .sandbox import Spent as Spent
from .sandbox import shared_sandbox as shared_sandbox
