from .diagnosis import examine as examine
from .report import describe as describe
from .report import write as write
