from .read import Reader as Reader
