"""How many devices there are, asked without torch: the processes that only start others use it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress


def num_devices(device: str, env: Mapping[str, str] | None = None) -> int:
    """The GPUs that `device` (auto, cpu or cuda) means, at least 1.

    `CUDA_VISIBLE_DEVICES` counts as CUDA itself counts it: up to the first that is none.
    """
    if device == "cpu":
        return 1
    visible = (os.environ if env is None else env).get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return max(1, _num_gpus())
    listed = [entry.strip() for entry in visible.split(",")]
    return max(1, next((n for n, entry in enumerate(listed) if entry in ("", "-1")), len(listed)))


def _num_gpus() -> int:
    import pynvml

    with suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        try:
            return int(pynvml.nvmlDeviceGetCount())
        finally:
            pynvml.nvmlShutdown()
    return 0
