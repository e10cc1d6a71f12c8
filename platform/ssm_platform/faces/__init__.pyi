from .cropping import CropSettings as CropSettings
from .cropping import stored_frames as stored_frames
from .detectors import Detector as Detector
from .tracker import FaceSettings as FaceSettings
from .tracker import MainFace as MainFace
from .tracker import make_detector as make_detector
