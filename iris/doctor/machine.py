"""The machine: processor, memory, GPU and its driver, torch."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from contextlib import suppress

from iris.config import Settings
from iris.doctor.finding import Finding
from iris.doctor.torch_facts import TorchFacts
from iris.fit import gib
from iris.host_memory import host_memory_bytes

_LEAST_PYTHON = (3, 11)


def look_at_machine(settings: Settings, torch: TorchFacts | str) -> Iterator[Finding]:
    """One finding about each."""
    version = platform.python_version()
    if sys.version_info < _LEAST_PYTHON:
        yield Finding("stop", "Python", version, "install 3.11 or newer")
    else:
        yield Finding("ok", "Python", version)
    cores = len(os.sched_getaffinity(0))
    memory = gib(host_memory_bytes())
    yield Finding("ok", "processor", f"{cores} usable cores, {memory} of memory")
    driver = _driver()
    if isinstance(torch, str):
        yield Finding("stop", "torch", torch, "run `make setup`")
        return
    built = f"built for CUDA {torch.cuda}" if torch.cuda else "built for CPUs"
    yield Finding("ok", "torch", f"{torch.version}, {built}")
    for gpu in torch.gpus:
        found = f"{gpu.name}, {gib(gpu.free_bytes)} of {gib(gpu.total_bytes)} free"
        yield Finding("ok", "GPU", f"{found}, driver {driver or 'unknown'}")
    if torch.gpus:
        return
    if settings.device == "cuda":
        why = f"there is a driver ({driver}), torch does not see it" if driver else "no driver"
        yield Finding(
            "stop",
            "GPU",
            f"none, and IRIS_DEVICE=cuda: {why}",
            "install the NVIDIA driver and a torch built for CUDA, or set IRIS_DEVICE=auto",
        )
    elif driver:
        yield Finding(
            "note",
            "GPU",
            f"driver {driver} is there, but torch sees no GPU",
            "install a torch built for CUDA, or look at CUDA_VISIBLE_DEVICES",
        )
    else:
        yield Finding("note", "GPU", "none: pictures are made on the processor")


def _driver() -> str | None:
    import pynvml

    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        try:
            return str(pynvml.nvmlSystemGetDriverVersion())
        finally:
            pynvml.nvmlShutdown()
    return None
