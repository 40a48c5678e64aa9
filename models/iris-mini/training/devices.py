"""The device that a step of the recipe trains on."""

from __future__ import annotations

import torch
import torch._inductor.config

# On an H200 no compiled step was reached in 75 seconds beside a rendering that kept 12 cores busy.
COMPILED = "the blocks; the default is to do so on a CPU alone"


def choose(name: str) -> torch.device:
    """`auto` is a GPU where one is visible, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        # Seen with torch 2.11 on an H200: an illegal memory access in the first backward pass.
        torch.backends.cuda.enable_cudnn_sdp(False)
        # Does not know shapes that vary, and fails on them (torch 2.11).
        torch._inductor.config.triton.coalesce_tiling_analysis = False
    return device
