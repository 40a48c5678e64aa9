"""Linear layers whose weights have eight bits: half the memory of bfloat16.

Two kinds. `Int8Linear` keeps its weights in int8, one scale a row, and multiplies in the dtype of
what it is given: it runs anywhere and rounds weights alone. `Fp8Linear` rounds what it is
given too, one scale a token, and multiplies in float8, for which the device needs the units
(compute capability 8.9 or newer: Ada, Hopper, Blackwell).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from iris.errors import StoreError

_FP8 = torch.float8_e4m3fn
_FP8_MAX = torch.finfo(_FP8).max
_LEAST = 1e-12  # a row of zeros has a scale too
_FP8_CAPABILITY = (8, 9)
_FP8_MULTIPLE = 16  # both widths of a float8 product
_ALL = slice(None)


class EightBitLinear(nn.Module):
    """A linear layer made of another one, which it rounds. in_features and out_features as there.

    dtype: what it computes in where that is not float8, and what it answers in.
    """

    weight: Tensor  # (out, in), eight bits
    scale: Tensor  # (out, 1) float32
    bias: Tensor | None

    def __init__(self, linear: nn.Linear, weight: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.dtype = linear.weight.dtype
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.register_buffer("bias", None if linear.bias is None else linear.bias.detach())


class Int8Linear(EightBitLinear):
    """Weights in int8, products in the dtype of x."""

    @torch.no_grad()
    def __init__(self, linear: nn.Linear) -> None:
        exact = linear.weight.float()
        scale = exact.abs().amax(dim=1, keepdim=True).clamp(min=_LEAST) / 127
        super().__init__(linear, (exact / scale).round().to(torch.int8), scale)

    def forward(self, x: Tensor, outputs: slice = _ALL) -> Tensor:
        """x: (..., in) -> (..., out), or those outputs alone."""
        weight = self.weight[outputs].to(x.dtype) * self.scale[outputs].to(x.dtype)
        return functional.linear(x, weight, None if self.bias is None else self.bias[outputs])


class Fp8Linear(EightBitLinear):
    """Weights and tokens in float8, one scale for each row of weights and for each token."""

    @torch.no_grad()
    def __init__(self, linear: nn.Linear) -> None:
        if linear.in_features % _FP8_MULTIPLE or linear.out_features % _FP8_MULTIPLE:
            raise StoreError(
                f"A layer of {linear.out_features}x{linear.in_features} cannot be float8: both "
                f"must be multiples of {_FP8_MULTIPLE}. Use int8."
            )
        super().__init__(linear, *in_fp8(linear.weight))
        # How x is rounded: as it is here, or compiled into one pass over it.
        self.in_fp8: Callable[[Tensor], tuple[Tensor, Tensor]] = in_fp8

    def rounded(self, x: Tensor) -> Rounded:
        """x: (tokens, in), for this layer and all others that take the same."""
        return Rounded(*self.in_fp8(x), x.dtype)

    def forward(self, x: Tensor | Rounded, outputs: slice = _ALL) -> Tensor:
        """x: (tokens, in) -> (tokens, out), or those outputs alone, multiples of 16."""
        if isinstance(x, Tensor):
            x = self.rounded(x)
        product = torch._scaled_mm(
            x.values,
            self.weight[outputs].T,
            scale_a=x.scales,
            scale_b=self.scale[outputs].T,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,  # Hopper's float8 is hardly faster than bfloat16 without it
        )
        product = product.to(x.dtype)
        return product if self.bias is None else product + self.bias[outputs]


@dataclass(frozen=True, slots=True)
class Rounded:
    """Tokens in float8. values: (tokens, in), scales: (tokens, 1) float32, dtype: they had."""

    values: Tensor
    scales: Tensor
    dtype: torch.dtype

    def split(self, heights: list[int]) -> list[Rounded]:
        """Runs of so many tokens."""
        parts = zip(
            *(torch.split(part, heights) for part in (self.values, self.scales)), strict=True
        )
        return [Rounded(values, scales, self.dtype) for values, scales in parts]


def round_layers(
    module: nn.Module, kind: Callable[[nn.Linear], EightBitLinear], device: torch.device
) -> None:
    """Put every linear layer below the module into eight bits, one by one, on the device."""
    for path, layer in list(module.named_modules()):
        if isinstance(layer, nn.Linear):
            parent, _, leaf = path.rpartition(".")
            setattr(module.get_submodule(parent), leaf, kind(layer.to(device)))


def multiplies_fp8(device: torch.device) -> bool:
    """Whether the device has float8 units."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= _FP8_CAPABILITY


def check_fp8(device: torch.device) -> None:
    """
    Raises:
        StoreError: the device multiplies no float8.
    """
    if not multiplies_fp8(device):
        raise StoreError(
            "IRIS_TRANSFORMER=fp8 needs a GPU with float8 units (compute capability 8.9 or newer: "
            "Ada, Hopper, Blackwell). Use IRIS_TRANSFORMER=int8, which takes the same memory."
        )


def in_fp8(values: Tensor) -> tuple[Tensor, Tensor]:
    """(rows, N) in float8, and the scale of each row: (rows, 1) float32."""
    exact = values.float()
    scale = exact.abs().amax(dim=1, keepdim=True).clamp(min=_LEAST) / _FP8_MAX
    # Held to the range: what is past it is not a number in float8.
    return (exact / scale).clamp(-_FP8_MAX, _FP8_MAX).to(_FP8), scale
