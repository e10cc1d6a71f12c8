from .places import Budget as Budget
from .places import Places as Places
from .spool import Spool as Spool
from .upload import Received as Received
from .upload import declared_bytes as declared_bytes
from .upload import read_body as read_body
from .upload import read_files as read_files
from .upload import upload_limit as upload_limit
