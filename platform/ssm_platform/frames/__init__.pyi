from .config import FrameRun as FrameRun
from .recipes import FRAME_RECIPES as FRAME_RECIPES
from .recipes import frame_recipe as frame_recipe
from .running import FrameResult as FrameResult
from .running import run_frames as run_frames
