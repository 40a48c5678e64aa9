"""Linear layers over the packed tokens of some rows, each row with its own style."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from iris.engine.dressing import Dressed
from iris.engine.floor import least_rows
from iris.engine.lora import Worn
from iris.engine.quantised import EightBitLinear, Fp8Linear, Rounded

_ALL = slice(None)


class Rows:
    """Applies linear layers to the packed tokens of some rows, each with its own style."""

    def __init__(
        self,
        lengths: Sequence[int],
        worn: Sequence[Worn | None],
        device: torch.device,
        is_strict: bool = False,
        along: Dressed | None = None,
    ) -> None:
        """along: the styles, where the layers' own products take them along."""
        self._lengths = lengths
        self._is_strict = is_strict
        self._along = along
        self._shortest = min(lengths)
        self._device = device
        ends = list(accumulate(lengths))
        self._dressed = [
            (slice(end - length, end), style)
            for length, end, style in zip(lengths, ends, worn, strict=True)
            if style is not None
        ]

    def __call__(self, layer: nn.Module, x: Tensor) -> Tensor:
        return self.all((layer,), x)[0]

    def parts(self, layer: nn.Module, x: Tensor, outputs: Sequence[slice]) -> list[Tensor]:
        """What the layer gives for x, those of its outputs alone and each slice by itself."""
        return self._given([(layer, part) for part in outputs], x)

    def all(self, layers: Sequence[nn.Module], x: Tensor) -> list[Tensor]:
        """What each of the layers, which are of one kind and take the same x, gives for it."""
        return self._given([(layer, _ALL) for layer in layers], x)

    def _given(self, parts: Sequence[tuple[nn.Module, slice]], x: Tensor) -> list[Tensor]:
        """x may come with ROOM more columns than the layers take."""
        layer, _ = parts[0]
        bare = x[:, : cast(nn.Linear, layer).in_features]
        given: Tensor | Rounded = bare
        if isinstance(layer, Fp8Linear):
            given = layer.rounded(bare)  # once for all of them
        return [self._dressed_product(*part, x, bare, given) for part in parts]

    def _dressed_product(
        self, layer: nn.Module, outputs: slice, x: Tensor, bare: Tensor, given: Tensor | Rounded
    ) -> Tensor:
        along = self._along
        if along is not None and along.takes(layer, x):
            return along.product(layer, x, outputs)
        y = self._product(layer, outputs, given)  # ours alone
        if along is not None and layer in along.downs:
            along.add_to(layer, y, bare, outputs)
            return y
        for tokens, worn in self._dressed:
            adapter = worn.style.adapters.get(layer)
            if adapter is not None:
                adapter.add_to(y[tokens], bare[tokens], worn.strength, outputs)
        return y

    def _product(self, layer: nn.Module, outputs: slice, x: Tensor | Rounded) -> Tensor:
        floor = least_rows((cast(nn.Linear, layer),), self._device, outputs)
        if len(self._lengths) == 1 or (self._shortest >= floor and not self._is_strict):
            return _linear(layer, outputs, x)
        runs = list(self._lengths) if self._is_strict else self._runs(floor)
        return torch.cat([_linear(layer, outputs, run) for run in x.split(runs)])

    def _runs(self, floor: int) -> list[int]:
        """Tokens to be taken together: a row below the floor alone, neighbours above it as one."""
        runs: list[int] = []
        is_open = False
        for length in self._lengths:
            if is_open and length >= floor:
                runs[-1] += length
            else:
                runs.append(length)
            is_open = length >= floor
        return runs


def _linear(layer: nn.Module, outputs: slice, x: Tensor | Rounded) -> Tensor:
    if isinstance(layer, EightBitLinear):
        return cast(Tensor, layer(x, outputs))
    plain = cast(nn.Linear, layer)
    bias = None if plain.bias is None else plain.bias[outputs]
    return functional.linear(cast(Tensor, x), plain.weight[outputs], bias)
