"""The token grids that are served, and so trained on. Rows come first: (8, 12) is 768x512.

Sizes beyond SIDES are painted within them and scaled, see `iris.engine.canvas`: fewer grids are
then enough, and objects have the few sizes that they have on those.
"""

from __future__ import annotations

from itertools import product

from iris.engine.canvas import Canvas, Sides

TOKEN = 64  # pixels of a token's side
SIDES = Sides(shorter_least_px=512, shorter_most_px=768, longer_most_px=960)
_LEAST_PX, _MOST_PX, _MOST_OF_EDITS_PX = 256, 960, 704
_STEP_PX = 16  # of the sizes that are served

GridSize = tuple[int, int]  # rows, columns


def _grids(most_px: int) -> tuple[GridSize, ...]:
    sides = range(_LEAST_PX, most_px + 1, _STEP_PX)
    grids = (Canvas.of(*size, TOKEN, SIDES).grid for size in product(sides, sides))
    return tuple(sorted({(grid.rows, grid.columns) for grid in grids}))


GRIDS = _grids(_MOST_PX)
GRIDS_OF_EDITS = _grids(_MOST_OF_EDITS_PX)
# Of the images that a picture is made from only the area is within an edit's.
_MOST_TOKENS = 15 * 9
GRIDS_OF_IMAGES = tuple(grid for grid in GRIDS if grid[0] * grid[1] <= _MOST_TOKENS)
