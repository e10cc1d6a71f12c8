"""Workers, CPUs and GPUs: what a run declares to Ray, and whether batches and the cluster hold it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from ssm_platform.cluster import ClusterSize, will_join
from ssm_platform.data import decoders, steps_of_block
from ssm_platform.runs.config import RunConfig
from ssm_platform.runs.preflight.refusals import Refusal

_STORE_SHARE = 0.6  # of the memory, at most


def cpus_needed(config: RunConfig) -> float:
    """CPUs the run declares to Ray at most: all its workers, the decode processes and one for Ray Data's reading.

    Ray Train takes as many workers as fit, up to the maximum, and asks before Ray Data does.
    """
    return _cpus_with(config, config.scale.bounds[1])


def _cpus_with(config: RunConfig, workers: int) -> float:
    return workers * config.scale.cpus_per_worker + _decoders(config, workers) * config.data.decode_cpus + 1


def _decoders(config: RunConfig, workers: int) -> int:
    """Decode processes beside so many workers: as many as are set beside the greatest number of them."""
    return decoders(config.data.decode_workers, workers, config.scale.bounds[1])


def store_bytes(config: RunConfig) -> int:
    """Memory that clips in flight take in Ray's object store, of which Ray Data fills half: for each decode process the
    block it makes and two that wait for room, for each worker the block it takes from and the one after.
    """
    if config.scale.store_gib is not None:
        return int(config.scale.store_gib * 2**30)
    workers, data = config.scale.bounds[1], config.data
    clip = config.model.frames * config.model.backbone.image_size**2 * 3
    share = sum(-(-clips // workers) for clips in data.batches.values())
    block = clip * share * steps_of_block(share, clip)
    return 2 * block * (3 * data.decode_workers + 2 * workers)


def check_store(config: RunConfig, machine: Machine | None = None) -> list[Refusal]:
    """A local cluster's object store that the machine's memory does not hold."""
    if will_join():
        return []
    needed, there = store_bytes(config), machine or Machine.here()
    limit = min(int(_STORE_SHARE * there.memory), there.shared)
    if needed <= limit:
        return []
    why = (
        f"clips in flight need {needed / 2**30:.1f} GiB of Ray's object store, but this machine has "
        f"{there.memory / 2**30:.1f} GiB of memory and {there.shared / 2**30:.1f} GiB in /dev/shm: lower "
        f"data.decode_workers or scale.workers, or set scale.store_gib to at most {limit / 2**30:.1f}"
    )
    return [Refusal("scale.store_gib", why)]


@dataclass(frozen=True)
class Machine:
    """Memory of a machine in bytes, and what of it is free for processes to share."""

    memory: int
    shared: int

    @classmethod
    def here(cls) -> Self:
        """This one."""
        shm = Path("/dev/shm")
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return cls(memory, shutil.disk_usage(shm).free if shm.is_dir() else memory)


def check_batches(config: RunConfig) -> list[Refusal]:
    """Batches that the workers cannot share, or cut into as many micro-batches as they are to accumulate."""
    return [*_check_shares(config), *_check_accumulation(config)]


def check_cluster(config: RunConfig, size: ClusterSize) -> list[Refusal]:
    """Whether the cluster can hold the workers beside Ray Data; an impossible budget would wait for ever.

    Ray Train grows to every worker that fits, whatever that leaves: so what counts is how many it would take here.
    """
    low, high = config.scale.bounds
    fitting = size.room(config.scale.cpus_per_worker, float(config.scale.gpu))
    budget = _check_budget(config, size, workers=max(low, min(high, fitting)))
    return [*budget, *_check_gpus(config, size), *(_check_nodes(config, size, fitting) if not budget else [])]


def _check_shares(config: RunConfig) -> list[Refusal]:
    workers, size = config.scale.bounds[1], config.data.global_batch
    if workers <= size:
        return []
    sides = " + ".join(f"data.{task}_batch" for task, batch in config.data.batches.items() if batch)
    why = f"{workers} workers cannot share {sides} = {size} clips: at most one worker a clip"
    return [Refusal("scale.workers", why)]


def _check_accumulation(config: RunConfig) -> list[Refusal]:
    """Each worker cuts its share of either batch into that many micro-batches of at least a clip."""
    workers, wanted = config.scale.bounds[1], config.train.accumulation
    shares = {f"data.{task}_batch": -(-batch // workers) for task, batch in config.data.batches.items() if batch}
    return [
        Refusal(
            "train.accumulation",
            f"is {wanted}, but a worker's share of {setting} is {share} clips ({workers} workers): lower it, or raise "
            f"the batch",
        )
        for setting, share in shares.items()
        if share < wanted
    ]


def _check_budget(config: RunConfig, size: ClusterSize, workers: int) -> list[Refusal]:
    scale, data = config.scale, config.data
    if (needed := _cpus_with(config, workers)) <= size.cpus:
        return []
    decoding = f"{_decoders(config, workers)} x {data.decode_cpus:g}"
    why = (
        f"{workers} x {scale.cpus_per_worker:g} CPUs for workers + {decoding} for "
        f"decoding + 1 for reading = {needed:g}, but the cluster declares {size.cpus:g}; Ray Data would get no CPU "
        f"and the run would hang"
    )
    possible = max((count for count in range(1, workers) if _cpus_with(config, count) <= size.cpus), default=0)
    if workers > scale.bounds[0] <= possible:
        why += f": at most {possible} workers leave it enough"
    return [Refusal("scale.workers, scale.cpus_per_worker, data.decode_workers or data.decode_cpus", why)]


def _check_gpus(config: RunConfig, size: ClusterSize) -> list[Refusal]:
    low = config.scale.bounds[0]
    if not config.scale.gpu or low <= size.gpus:
        return []
    return [Refusal("scale.gpu", f"{low} workers want a GPU each, the cluster has {size.gpus:g}")]


def _check_nodes(config: RunConfig, size: ClusterSize, fitting: int) -> list[Refusal]:
    """What fits into the cluster as a whole may still fit on no node."""
    scale = config.scale
    refusals = [
        Refusal(setting, f"is {cpus:g}, but no node declares more than {size.largest:g} CPUs")
        for setting, cpus in (
            ("scale.cpus_per_worker", scale.cpus_per_worker),
            ("data.decode_cpus", config.data.decode_cpus),
        )
        if cpus > size.largest
    ]
    if not refusals and fitting < scale.bounds[0] and (not scale.gpu or scale.bounds[0] <= size.gpus):
        what = f"{scale.cpus_per_worker:g} CPUs{' and a GPU' if scale.gpu else ''}"
        why = f"{scale.bounds[0]} workers of {what} each, but only {fitting} fit, each on one node"
        refusals.append(Refusal("scale.workers or scale.cpus_per_worker", why))
    return refusals
