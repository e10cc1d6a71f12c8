from .places import default_place as default_place
from .places import open_storage as open_storage
from .protocol import MissingKey as MissingKey
from .protocol import Storage as Storage
from .protocol import StorageError as StorageError
from .protocol import StorageSettings as StorageSettings
