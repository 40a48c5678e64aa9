"""How many rows a matrix product needs before each row's result no longer depends on their number.

On a CPU the library picks its way through a product by its height: few rows go through other
kernels, or are shared out among the threads along the sum itself, and then round differently. A
picture must not change with its neighbours, so rows of a packed pass that are lower than the floor
go through a layer by themselves, as they would alone. The floor depends on the machine, the threads
and the widths, so it is measured, once, when a model is loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import torch
from torch import nn

from iris.engine.quantised import EightBitLinear

# Odd heights too: what is left over by a kernel's blocks is where kernels differ.
_HEIGHTS = (
    8, 9, 15, 16, 24, 33, 48, 64, 80, 97, 128, 145, 176, 208, 241, 272, 320, 385, 448, 512, 577,
    640, 768, 1025,
)  # fmt: skip


@torch.inference_mode()
def least_rows(
    layers: Iterable[nn.Linear | EightBitLinear],
    device: torch.device,
    outputs: slice = slice(None),
) -> int:
    """The lowest height from which products with all of these layers are steady on the device.

    outputs: of each layer, that are computed. 1 on CUDA, where byte equality is not promised.
    """
    threads = torch.get_num_threads()
    return max(
        _least_rows(
            (len(range(layer.out_features)[outputs]), layer.in_features),
            _dtype(layer),
            device,
            threads,
        )
        for layer in layers
    )


def _dtype(layer: nn.Linear | EightBitLinear) -> torch.dtype:
    """What the layer's products are computed in."""
    return layer.dtype if isinstance(layer, EightBitLinear) else layer.weight.dtype


@cache
def _least_rows(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, _threads: int
) -> int:
    if device.type != "cpu":
        return 1
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator).to(dtype)
    x = torch.randn(_HEIGHTS[-1], shape[1], generator=generator).to(dtype)
    whole = nn.functional.linear(x, weight)
    least = _HEIGHTS[-1]
    for height in reversed(_HEIGHTS[:-1]):
        if not torch.equal(nn.functional.linear(x[:height], weight), whole[:height]):
            break
        least = height
    return least
