"""What lies between matrix products and convolutions: norms, modulation, rotation, gates.

None of it mixes tokens, and all blocks share it, so `Pointwise(compiled=True)` turns each function
into one kernel for every block and every number of tokens and rows. The products and attention stay
out of it: they are library calls whichever way they are reached, and on a CPU they go row by row
where they must (`floor.py`), which a compiled graph would have to know of.

`values` of rows are (rows, N) with the row of each token in `row_of`, or (1, N) with None. What
goes into a product comes with ROOM columns more where it `has_room`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import FunctionType
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional

from iris.engine.dressing import ROOM
from iris.engine.packing import reorder, spread
from iris.engine.quantised import in_fp8
from iris.engine.silu import silu_of_lines

Rotation = tuple[Tensor, Tensor]  # cosines and sines, (tokens, head width) each
Heads = tuple[Tensor, Tensor, Tensor]  # queries, keys, values: (tokens, heads, head width) each
Function = Callable[..., Any]


def modulated(
    x: Tensor,
    eps: float,
    scale: Tensor,
    shift: Tensor,
    row_of: Tensor | None,
    has_room: bool = False,
) -> Tensor:
    """Normalise tokens (tokens, width), then scale and shift them by their row's values."""
    normed = functional.layer_norm(x, x.shape[-1:], eps=eps)
    return _spaced((1 + spread(scale, row_of)) * normed + spread(shift, row_of), has_room)


def gated_sum(x: Tensor, gate: Tensor, y: Tensor, row_of: Tensor | None) -> Tensor:
    """x + gate * y, with each token's gate from its row."""
    return x + spread(gate, row_of) * y


def carried_on(
    x: Tensor,
    gate: Tensor,
    y: Tensor,
    eps: float,
    scale: Tensor,
    shift: Tensor,
    row_of: Tensor | None,
    has_room: bool = False,
) -> tuple[Tensor, Tensor]:
    """What one product gave, added to x behind its gate; and that, modulated for the next."""
    x = gated_sum(x, gate, y, row_of)
    return x, modulated(x, eps, scale, shift, row_of, has_room)


def rotated(
    query: Tensor,
    key: Tensor,
    weights: tuple[Tensor, Tensor],
    eps: tuple[float, float],
    rotation: Rotation,
) -> tuple[Tensor, Tensor]:
    """`turned` for queries and keys of the same tokens."""
    return (
        turned(query, weights[0], eps[0], rotation),
        turned(key, weights[1], eps[1], rotation),
    )


def turned(heads: Tensor, weight: Tensor, eps: float, rotation: Rotation) -> Tensor:
    """Normalise heads (tokens, heads, head width) and rotate them by their token's position."""
    return _rotate(_normed(heads, weight, eps), rotation).to(heads.dtype)


def joined(
    text: Heads,
    picture: Heads,
    weights: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]],
    eps: tuple[tuple[float, float], tuple[float, float]],
    rotation: Rotation,
    to_rows: Tensor | None,
) -> Heads:
    """Heads of all prompts and of all pictures: normalised apart, put by row, rotated.

    weights, eps: of queries and of keys, for prompts and for pictures each.
    """
    query, key = (
        _rotate(
            reorder(
                torch.cat(
                    [
                        _normed(text[part], weights[part][0], eps[part][0]),
                        _normed(picture[part], weights[part][1], eps[part][1]),
                    ]
                ),
                to_rows,
            ),
            rotation,
        ).to(text[part].dtype)
        for part in (0, 1)
    )
    return query, key, reorder(torch.cat([text[2], picture[2]]), to_rows)


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


def swiglu(x: Tensor, has_room: bool = False) -> Tensor:
    """(tokens, 2 N) -> (tokens, N): the first half gates the second."""
    gate, value = x.chunk(2, dim=-1)
    return _spaced(silu_of_lines(gate) * value, has_room)


def levels(
    x: Tensor, offset: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float
) -> tuple[Tensor, Tensor]:
    """What GroupNorm does to a picture (1, channels, height, width): scale and shift by channel.

    offset: (channels,), what the picture is still without.

    Line by line, then by channel, then by group: lines enough to keep a GPU busy, with channels
    last in memory, where CUDA's own GroupNorm would bring them to the front and back again. Sums
    and squares in one go over the pixels.
    """
    x = x.float()
    mean, square = x.mean(3).mean(2)[0], x.square().mean(3).mean(2)[0]
    return by_group(mean, square, offset, weight, bias, groups, eps)


def by_group(
    mean: Tensor,
    square: Tensor,
    offset: Tensor,
    weight: Tensor,
    bias: Tensor,
    groups: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """`levels` of a picture whose channels have these means, also of their squares: (channels,)."""
    variance = (square - mean.square()).clamp(min=0.0)
    variance, mean = variance.view(groups, -1), (mean + offset).view(groups, -1)
    middle = mean.mean(1, keepdim=True)
    spread_of_group = variance.mean(1, keepdim=True) + (mean - middle).square().mean(1, True)
    scale = torch.rsqrt(spread_of_group + eps) * weight.view(groups, -1)
    shift = bias.view(groups, -1) + (offset.view(groups, -1) - middle) * scale
    return scale.view(1, -1, 1, 1), shift.view(1, -1, 1, 1)


def activated(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """A picture (1, channels, height, width) by its `levels`, and SiLU."""
    return functional.silu(x * scale + shift).to(x.dtype)


def enlarged(x: Tensor, offset: Tensor) -> Tensor:
    """A picture (1, channels, height, width) and its offset (channels,), each pixel four times."""
    lines = (x + offset[:, None, None]).to(x.dtype).permute(0, 2, 3, 1)[:, :, None, :, None]
    _, height, _, width, _, channels = lines.shape
    lines = lines.expand(1, height, 2, width, 2, channels)
    return lines.reshape(1, 2 * height, 2 * width, channels).permute(0, 3, 1, 2)


def bordered(x: Tensor, offset: Tensor) -> Tensor:
    """A picture (1, channels, height, width) and its offset, with nothing right and below of it."""
    return functional.pad((x + offset[:, None, None]).to(x.dtype), (0, 1, 0, 1))


def beside_swiglu(seen: Tensor, x: Tensor, has_room: bool = False) -> Tensor:
    """What attention saw and the gated half of x, side by side."""
    return _spaced(torch.cat([seen, swiglu(x)], dim=1), has_room)


def _spaced(x: Tensor, has_room: bool) -> Tensor:
    """x, with room for what styles add to it, see `dressing.py`."""
    return functional.pad(x, (0, ROOM)) if has_room else x


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
        self.carried_on = self._made(carried_on)
        self.rotated = self._made(rotated)
        self.turned = self._made(turned)
        self.joined = self._made(joined)
        self.swiglu = self._made(swiglu)
        self.beside_swiglu = self._made(beside_swiglu)
        self.levels = self._made(levels)  # apart from what uses it, or each pixel would compute it
        self.activated = self._made(activated)
        self.enlarged = self._made(enlarged)
        self.bordered = self._made(bordered)
        self.in_fp8 = self._made(in_fp8)

    def settle(self) -> None:
        """From now on nothing is compiled any more: what is new runs as it is."""
        self._is_settled = True

    def stance(self) -> AbstractContextManager[object]:
        """Inside, the functions keep to what `settle` promised; for any number of threads."""
        return _NOTHING_NEW if self.is_compiled and self._is_settled else nullcontext()

    def _made(self, function: Function) -> Function:
        if not self.is_compiled:
            return function
        # A copy: the compiler keeps graphs by code, and few; two models would share them.
        given = cast(FunctionType, function)
        own = FunctionType(given.__code__.replace(), given.__globals__, given.__name__)
        own.__defaults__ = given.__defaults__
        turned: Function = torch.compile(own, dynamic=True, fullgraph=True)

        def called(*args: Any) -> Any:
            if not self._is_settled:
                _fix_widths(args)
            return turned(*args)

        return called


def _fix_widths(given: object) -> None:
    """Let the compiler take the widths of tensors for numbers; only tokens, rows and pixels vary.

    Kernels that know them divide by constants and load several values at once.
    """
    if isinstance(given, Tensor):
        widths = [1] if given.dim() == 4 else list(range(1, given.dim()))
        if widths:
            torch._dynamo.mark_static(given, widths)
    elif isinstance(given, tuple | list):
        for part in given:
            _fix_widths(part)
