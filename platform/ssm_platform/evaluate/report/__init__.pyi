from .maps import map_report as map_report
from .page import Thumbnail as Thumbnail
from .page import render as render
