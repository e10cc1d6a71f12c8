from .absent import compiler_absent as compiler_absent
