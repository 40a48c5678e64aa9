"""Small tensors on their way to the device."""

from __future__ import annotations

import torch
from torch import Tensor


def upload(values: Tensor, device: torch.device, dtype: torch.dtype | None = None) -> Tensor:
    """Values made on the CPU, on the device, without waiting for what the device has to do.

    From ordinary memory CUDA may wait for the whole stream before it copies; from pinned memory
    it never does.
    """
    if device.type == "cuda":
        return values.to(dtype or values.dtype).pin_memory().to(device, non_blocking=True)
    return values.to(device, dtype)
