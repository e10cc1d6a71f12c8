from .spool import Spool as Spool
from .upload import Received as Received
from .upload import read_body as read_body
from .upload import read_files as read_files
