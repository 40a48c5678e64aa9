"""Styles in the sums that are computed anyway, on a GPU.

A style's product by itself goes over what its layer gave once more, and that is the widest thing in
a pass: a tenth of the layer's own time. Here tokens and weights are laid out a little wider than
they are, so that the layer's own product takes the styles along:

    y = [x | strength * (x @ down.T)] @ [weight | scale * up].T
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from iris.engine.lora import Style, Worn
from iris.engine.packing import spread
from iris.engine.transfer import upload

ROOM = 64  # columns: the ranks of all styles of one pass, together
_STEP = 8  # columns: products want to begin and end at multiples of 16 bytes


@dataclass(frozen=True, slots=True)
class Dressed:
    """Products that take along what the rows of one pass wear."""

    wide: Mapping[nn.Module, Tensor]  # (out, in + ROOM)
    downs: Mapping[nn.Module, Tensor]  # (columns in use, in), of layers that a style changes
    strengths: Tensor  # (rows, columns in use) or (tokens, columns in use), float32
    within: slice  # the rows, or tokens, from the first that wears something to the last

    def over(self, lengths: Sequence[int], row_of: Tensor | None) -> Dressed:
        """The same for the tokens of rows of these lengths; row_of: the row of each."""
        first, end = self.within.start, self.within.stop
        within = slice(sum(lengths[:first]), sum(lengths[:end]))
        return replace(self, strengths=spread(self.strengths, row_of), within=within)

    def takes(self, layer: nn.Module, x: Tensor) -> bool:
        """Whether a style changes the layer and x has room for it."""
        down = self.downs.get(layer)
        return down is not None and x.shape[1] == down.shape[1] + ROOM

    def add_to(self, layer: nn.Module, y: Tensor, x: Tensor, outputs: slice) -> None:
        """Add all styles to y, (tokens, outputs), in place, where x, (tokens, in), has no room."""
        down = self.downs[layer]
        width, ends_at = down.shape[1], down.shape[1] + down.shape[0]
        share = (x @ down.T * self.strengths).to(y.dtype)
        y.addmm_(share, self.wide[layer][outputs, width:ends_at].T)

    def product(self, layer: nn.Module, x: Tensor, outputs: slice) -> Tensor:
        """What the layer and all styles give for those of its outputs.

        x: (tokens, in + ROOM). Its room comes empty; what styles add is written there for the
        tokens within, and stays nothing for the others.
        """
        down, within = self.downs[layer], self.within
        width, ends_at = down.shape[1], down.shape[1] + down.shape[0]
        room = x[:, width:ends_at]
        strengths = self.strengths if len(self.strengths) == 1 else self.strengths[within]
        torch.mul(x[within, :width] @ down.T, strengths, out=room[within])
        bias = cast(nn.Linear, layer).bias
        return functional.linear(
            x[:, :ends_at],
            self.wide[layer][outputs, :ends_at],
            None if bias is None else bias[outputs],
        )


@dataclass(frozen=True, slots=True)
class _Place:
    style: weakref.ref[Style]
    columns: slice


class Dressing:
    """The linear layers of some blocks, with room for the styles of one pass at a time.

    The layers stay what they are; their weights become the first columns of wider ones.
    """

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        self._wide: dict[nn.Module, Tensor] = {}
        self._downs: dict[nn.Module, Tensor] = {}
        self._places: list[_Place] = []
        self.laid = 0  # how often styles were laid: what an earlier time was put on is gone
        layers = [m for block in blocks for m in block.modules() if isinstance(m, nn.Linear)]
        with torch.inference_mode(False), torch.no_grad():
            for layer in layers:  # one by one: nothing is there twice for long
                rows, columns = layer.weight.shape
                wide = layer.weight.new_zeros(rows, columns + ROOM)
                wide[:, :columns] = layer.weight
                layer.weight.data = wide[:, :columns]
                self._wide[layer] = wide
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # no weight fits into the room of one that was narrower

    def covers(self, style: Style) -> bool:
        """Whether all layers that the style changes are among those with room."""
        return all(layer in self._wide for layer in style.adapters)

    def put_on(self, worn: Sequence[Worn | None], device: torch.device) -> Dressed | None:
        """Give the room to what these rows wear.

        None where nobody wears a style, or they do not fit all together. What was put on before
        must not be used any more.
        """
        wanted = list({id(one.style): one.style for one in worn if one is not None}.values())
        if not wanted or sum(map(_num_columns, wanted)) > ROOM:
            return None
        lying = [place.style() for place in self._places]
        if any(style not in lying for style in wanted):
            others = [style for style in lying if style is not None and style not in wanted]
            self._lay([*wanted, *others])
        strengths = torch.zeros(len(worn), self._places[-1].columns.stop)
        for row, one in enumerate(worn):
            for place in self._places:
                if one is not None and place.style() is one.style:
                    strengths[row, place.columns] = one.strength
        dressed = [row for row, one in enumerate(worn) if one is not None]
        within = slice(dressed[0], dressed[-1] + 1)
        return Dressed(self._wide, self._downs, upload(strengths, device), within)

    def _lay(self, styles: Sequence[Style]) -> None:
        """Put as many of the styles as there is room for beside the weights."""
        self._places, places, start = [], [], 0  # nothing lies there if this fails halfway
        for style in styles:
            end = start + _num_columns(style)
            if end <= ROOM:
                places.append((style, start))
                start = end
        self.laid += 1
        self._downs = {}
        for layer, wide in self._wide.items():
            adapters = [(style.adapters.get(layer), column) for style, column in places]
            if not any(adapter for adapter, _ in adapters):
                continue
            width = wide.shape[1] - ROOM
            down = wide.new_zeros(start, width)
            wide[:, width:] = 0
            for adapter, column in adapters:
                if adapter is not None:
                    columns = slice(column, column + len(adapter.down))
                    down[columns] = adapter.down
                    wide[:, width:][:, columns] = adapter.up * adapter.scale
            self._downs[layer] = down
        self._places = [
            _Place(weakref.ref(style), slice(column, column + _num_columns(style)))
            for style, column in places
        ]


def _num_columns(style: Style) -> int:
    rank = max(len(adapter.down) for adapter in style.adapters.values())
    return -(-rank // _STEP) * _STEP
