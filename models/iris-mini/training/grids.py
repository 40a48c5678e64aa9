"""The token grids that are served, and so trained on. Rows come first: (10, 15) is 960x640.

Whatever size is asked for is painted at one scale, see `iris.engine.canvas`: a grid for each aspect
is then enough, and objects have few sizes. What was painted once lies on the grid again when it is
edited, whatever it was scaled to in between. Images that are only looked at are read smaller: up to
five are read at once.
"""

from __future__ import annotations

from itertools import product

from iris.engine.canvas import Canvas, Sides

TOKEN = 64  # pixels of a token's side
SIDES = Sides(shorter_px=768, longer_most_px=960)
COMPOSITION_SIDES = Sides(shorter_px=704, longer_most_px=960)
REFERENCE_SIDES = Sides(shorter_px=512, longer_most_px=960)
_SIZES_PX = range(256, 961, 16)  # of the sides that are served

GridSize = tuple[int, int]  # rows, columns


def _grids(sides: Sides) -> tuple[GridSize, ...]:
    grids = (Canvas.of(*size, TOKEN, sides).grid for size in product(_SIZES_PX, _SIZES_PX))
    return tuple(sorted({(grid.rows, grid.columns) for grid in grids}))


GRIDS = _grids(SIDES)
GRIDS_OF_COMPOSITIONS = _grids(COMPOSITION_SIDES)
GRIDS_OF_REFERENCES = _grids(REFERENCE_SIDES)
