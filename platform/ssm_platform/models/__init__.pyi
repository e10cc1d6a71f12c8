from .description import DEFAULT as DEFAULT
from .description import Expressions as Expressions
from .description import ModelDescription as ModelDescription
from .description import locate as locate
from .description import pinned as pinned
from .description import registry_uri as registry_uri
from .registry import Registry as Registry
from .shipped import ship as ship
