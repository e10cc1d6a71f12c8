from .findings import setting_table as setting_table
from .report import conclude as conclude
from .space import Space as Space
from .space import SpaceError as SpaceError
from .space import parse_space as parse_space
from .space import read_space as read_space
from .sweep import Sweep as Sweep
from .sweep import SweepConfig as SweepConfig
