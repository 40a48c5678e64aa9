"""What is done when the device's memory does not suffice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol, TypeVar
from weakref import WeakSet

import torch

from iris.engine import metrics
from iris.engine.cache import Cache
from iris.engine.quantised import multiplies_fp8
from iris.fit import Fit, ModelSize, check_fits, check_host, engines_on
from iris.host_memory import host_memory_bytes

Result = TypeVar("Result")
# Held while work is recorded: CUDA's allocator must give nothing back meanwhile.
RECORDING = threading.Lock()


class GivesWay(Protocol):
    """Holds memory for what can be done without it. Any thread may ask for it."""

    def forget(self) -> None: ...


_GIVE_WAY: WeakSet[GivesWay] = WeakSet()


def gives_way(holder: GivesWay) -> None:
    """Ask this one, as long as it is there, whenever memory does not suffice."""
    _GIVE_WAY.add(holder)


def check_memory(
    name: str,
    size: ModelSize,
    fit: Fit,
    device: torch.device,
    bytes_each: int,
    *,
    engines: int = 1,
) -> None:
    """Before anything is loaded: whether the device has what the model will take.

    bytes_each: of a parameter, as it is served; engines: of the service, all together.

    Raises:
        ConfigError: it has not, in memory or float8 units; says what would fit.
    """
    if device.type == "cuda":
        free_bytes, total_bytes = torch.cuda.mem_get_info(device)
        beside = engines_on(device.index or 0, engines, torch.cuda.device_count())
        check_fits(
            name,
            size,
            fit,
            free_bytes,
            total_bytes // max(1, beside),
            has_fp8=multiplies_fp8(device),
            bytes_each=bytes_each,
        )
    else:
        memory_bytes = host_memory_bytes()
        check_host(name, size, fit, memory_bytes, engines=engines, bytes_each=bytes_each)


def is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)


def make_room(cache: Cache) -> None:
    """Give back what can be computed anew."""
    metrics.OUT_OF_MEMORY.inc()
    cache.clear()
    for holder in list(_GIVE_WAY):
        holder.forget()
    if torch.cuda.is_available():
        with RECORDING:
            torch.cuda.empty_cache()


def with_room(work: Callable[[], Result], cache: Cache) -> Result:
    """Do the work; where memory does not suffice, make room and do it once more."""
    try:
        return work()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    make_room(cache)  # outside of the handler: the error holds on to what it failed at
    return work()
