"""SiLU, the same for a line of values whatever is beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_SHARED_OUT = 32768  # values from which on torch shares work on single values out among threads


def silu_of_lines(x: Tensor) -> Tensor:
    """SiLU of (..., width), each line the same whatever is beside it.

    A CPU's threads cut large work into equal shares, wherever that is. What is left of a vector at
    the end of a share is computed number by number, and rounds otherwise. So no share ends within a
    line: there are as many lines to each thread, or too few to be shared out.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling():
        return functional.silu(x)
    threads = torch.get_num_threads()
    if threads == 1 or x.numel() < _SHARED_OUT:
        return functional.silu(x)
    lines = x.flatten(0, -2)
    height, width = lines.shape
    shared = height - height % threads
    if shared * width < threads * _SHARED_OUT:
        shared = 0
    parts = [functional.silu(lines[:shared])] if shared else []
    least = max(1, (_SHARED_OUT - 1) // width)
    starts = range(shared, height, least)
    parts += [functional.silu(lines[start : min(start + least, height)]) for start in starts]
    return (torch.cat(parts) if len(parts) > 1 else parts[0]).view(x.shape)


class SiluOfLines(nn.Module):
    """`silu_of_lines` in the place of a model's own activation."""

    def forward(self, x: Tensor) -> Tensor:
        return silu_of_lines(x)
