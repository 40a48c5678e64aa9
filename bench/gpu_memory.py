"""The memory of the device and of the process, read all the time."""

from __future__ import annotations

import gc
import threading
from pathlib import Path

import torch
from prometheus_client import REGISTRY

_GIB = 1 << 30


def rss_bytes() -> int:
    """Of this process, without what it shares with files it has mapped."""
    _, resident, shared, *_ = Path("/proc/self/statm").read_text().split()
    return (int(resident) - int(shared)) * 4096


def kept_bytes() -> dict[str, float]:
    """What the engine keeps on the device on purpose: each has a bound of its own."""
    kinds = {"cache": "cache", "styles": "style", "recordings": "recording"}
    metrics = {f"iris_engine_{kind}_bytes": name for name, kind in kinds.items()}
    found = dict.fromkeys(kinds, 0.0)
    for family in REGISTRY.collect():
        if family.name in metrics:  # of some there are several, by what they are for
            found[metrics[family.name]] += sum(sample.value for sample in family.samples)
    return found


class MemoryWatch:
    """Reads the device's memory all the time; `window` tells of the time since it was last asked.

    The least that was allocated in a window is about what lies there between steps.
    """

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self.peak = 0.0  # GiB, of all
        self._least = float("inf")
        threading.Thread(target=self._run, name="memory", daemon=True).start()

    def _run(self) -> None:
        while not self._ended.wait(0.1):
            with self._lock:
                self._least = min(self._least, self.now()["allocated"])

    def now(self) -> dict[str, float]:
        """GiB. On a CPU nothing but the process and what is kept is known."""
        found = {"rss": float(rss_bytes()), "allocated": 0.0} | kept_bytes()
        if self._is_cuda:
            found["allocated"] = torch.cuda.memory_allocated()
            found["reserved"] = torch.cuda.memory_reserved()
        return {name: value / _GIB for name, value in found.items()}

    def window(self) -> dict[str, float]:
        with self._lock:
            found = self.now() | {"between_steps": min(self._least, self.now()["allocated"])}
            self._least = float("inf")
        if self._is_cuda:
            found["peak"] = torch.cuda.max_memory_allocated() / _GIB
            self.peak = max(self.peak, found["peak"])
            torch.cuda.reset_peak_memory_stats()
        return {name: round(value, 3) for name, value in found.items()}

    def quiet(self) -> dict[str, float]:
        """When nothing is under way; `allocated` is then weights, caches, and what leaks."""
        gc.collect()
        if self._is_cuda:
            torch.cuda.synchronize()
        found = self.now()
        kept = sum(found[name] for name in kept_bytes())
        found["allocated_less_kept"] = found["allocated"] - kept
        return {name: round(value, 4) for name, value in found.items()}

    def stop(self) -> None:
        self._ended.set()
