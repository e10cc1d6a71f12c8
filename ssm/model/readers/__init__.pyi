from .base import AUInputs as AUInputs
from .base import AUReader as AUReader
from .base import AUReading as AUReading
from .base import AUTeaching as AUTeaching
from .base import Texts as Texts
from .evidence import Evidence as Evidence
from .table import READERS as READERS
from .table import reader_class as reader_class
