"""Outlines to be painted: made of points, placed, mirrored, united."""

from __future__ import annotations

from collections.abc import Sequence

import skia

_MIRROR = skia.Matrix()
_MIRROR.setScale(-1, 1)


def polygon(points: Sequence[tuple[float, float]], close: bool = True) -> skia.Path:
    """A path through points."""
    return skia.Path.Polygon([skia.Point(x, y) for x, y in points], close)


def placed(path: skia.Path, x: float, y: float, scale: float, turn: float = 0.0) -> skia.Path:
    """A unit path turned (degrees), scaled and moved to its place."""
    matrix = skia.Matrix()
    matrix.setTranslate(x, y)
    matrix.preScale(scale, scale)
    if turn:
        matrix.preRotate(turn)
    out = skia.Path()
    path.transform(matrix, out)
    return out


def mirrored(path: skia.Path) -> skia.Path:
    """A unit path with left and right exchanged."""
    out = skia.Path()
    path.transform(_MIRROR, out)
    return out


def union(*paths: skia.Path) -> skia.Path:
    """One outline around several that overlap."""
    whole = paths[0]
    for path in paths[1:]:
        whole = skia.Op(whole, path, skia.PathOp.kUnion_PathOp)
    return whole
