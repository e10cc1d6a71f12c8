"""How glibc keeps memory in the processes of a service, as environment variables.

A buffer above a bound is mapped by itself and given back when it is freed. glibc starts with 128 KiB and raises the
bound to 32 MiB as it meets larger buffers; from then on what an upload passed through stays with Ray's proxy and the
ingress. A model wants the raised bound: its activations come and go with every pass, and mapping each costs half as
much again as the pass itself.
"""

GIVES_BACK = {"MALLOC_MMAP_THRESHOLD_": str(2**17)}
"""For all processes of a cluster that serves."""

KEEPS = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**26)}
"""For replicas of the model: where glibc ends up by itself."""
