"""What lies between matrix products and convolutions: norms, modulation, rotation, gates.

None of it mixes tokens, and all blocks share it, so `Pointwise(compiled=True)` turns each function
into one kernel for every block and every number of tokens and rows. The products and attention stay
out of it: they are library calls whichever way they are reached, and on a CPU they go row by row
where they must (`floor.py`), which a compiled graph would have to know of.

`values` of rows are (rows, N) with the row of each token in `row_of`, or (1, N) with None.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor
from torch.nn import functional

from iris.engine.packing import reorder, spread

Rotation = tuple[Tensor, Tensor]  # cosines and sines, (tokens, head width) each
Function = Callable[..., Tensor]


def modulated(x: Tensor, eps: float, scale: Tensor, shift: Tensor, row_of: Tensor | None) -> Tensor:
    """Normalise tokens (tokens, width), then scale and shift them by their row's values."""
    normed = functional.layer_norm(x, x.shape[-1:], eps=eps)
    return (1 + spread(scale, row_of)) * normed + spread(shift, row_of)


def gated_sum(x: Tensor, gate: Tensor, y: Tensor, row_of: Tensor | None) -> Tensor:
    """x + gate * y, with each token's gate from its row."""
    return x + spread(gate, row_of) * y


def rotated(x: Tensor, weight: Tensor, eps: float, rotation: Rotation) -> Tensor:
    """Normalise heads (tokens, heads, head width) and rotate them by their token's position."""
    return _rotate(_normed(x, weight, eps), rotation).to(x.dtype)


def joined(
    text: Tensor,
    picture: Tensor,
    weights: tuple[Tensor, Tensor],
    eps: tuple[float, float],
    rotation: Rotation,
    to_rows: Tensor | None,
) -> Tensor:
    """Heads of all prompts and of all pictures: normalised apart, put by row, rotated."""
    parts = [
        _normed(part, weight, least)
        for part, weight, least in zip((text, picture), weights, eps, strict=True)
    ]
    return _rotate(reorder(torch.cat(parts), to_rows), rotation).to(text.dtype)


def _normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """RMSNorm in float32, as what follows wants it."""
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def _rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Turn neighbouring channels of heads (tokens, heads, head width) as pairs.

    Source: diffusers, apply_rotary_emb with use_real_unbind_dim=-1, where both channels of a
    pair have the same angle.
    """
    cosines, sines = (part[:, None, ::2] for part in rotation)
    real, imaginary = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)
    turned = (real * cosines - imaginary * sines, imaginary * cosines + real * sines)
    return torch.stack(turned, dim=-1).flatten(-2)


def swiglu(x: Tensor) -> Tensor:
    """(tokens, 2 N) -> (tokens, N): the first half gates the second."""
    gate, value = x.chunk(2, dim=-1)
    return functional.silu(gate) * value


def activated(x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
    """GroupNorm and SiLU of a picture (1, channels, height, width).

    By channel first and then by group, as channels lie last in memory; CUDA's own GroupNorm would
    bring them to the front, and the convolution behind it to the back again.
    """
    variance, mean = torch.var_mean(x.float(), dim=(2, 3), correction=0)
    variance, mean = (part.view(groups, -1) for part in (variance, mean))
    middle = mean.mean(1, keepdim=True)
    spread_of_group = variance.mean(1, keepdim=True) + (mean - middle).square().mean(1, True)
    scale = torch.rsqrt(spread_of_group + eps) * weight.view(groups, -1)
    shift = bias.view(groups, -1) - middle * scale
    normed = x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)
    return functional.silu(normed).to(x.dtype)


def beside_swiglu(seen: Tensor, x: Tensor) -> Tensor:
    """What attention saw and the gated half of x, side by side."""
    return torch.cat([seen, swiglu(x)], dim=1)


class _NothingNew:
    """While anybody is inside, what has not been compiled runs as it is.

    The compiler's stance is one for the whole process: the first to come in sets it, the last to
    leave takes it back.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._stance: AbstractContextManager[object] = nullcontext()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._stance = torch.compiler.set_stance("eager_on_recompile")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._stance.__exit__(None, None, None)


_NOTHING_NEW = _NothingNew()


class Pointwise:
    """The functions of this module, compiled or not."""

    def __init__(self, *, compiled: bool) -> None:
        """compiled: the first calls compile, seconds each; see `PackedTransformer.warm`.

        A CPU needs a C++ compiler for that.
        """
        self.is_compiled = compiled
        self._is_settled = False
        self.modulated = self._made(modulated)
        self.gated_sum = self._made(gated_sum)
        self.rotated = self._made(rotated)
        self.joined = self._made(joined)
        self.swiglu = self._made(swiglu)
        self.beside_swiglu = self._made(beside_swiglu)
        self.activated = self._made(activated)

    def settle(self) -> None:
        """From now on nothing is compiled any more: what is new runs as it is."""
        self._is_settled = True

    def stance(self) -> AbstractContextManager[object]:
        """Inside, the functions keep to what `settle` promised; for any number of threads."""
        return _NOTHING_NEW if self.is_compiled and self._is_settled else nullcontext()

    def _made(self, function: Function) -> Function:
        if not self.is_compiled:
            return function
        turned: Function = torch.compile(function, dynamic=True, fullgraph=True)
        return turned
