"""The land of a picture, and the picture behind and before its objects."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import skia

from .spec import Scene
from .weather import (
    WHITE,
    Brush,
    Colour,
    Frame,
    Light,
    across,
    draw_branch,
    draw_fall,
    draw_sky,
    draw_veil,
    light,
    mix,
    outline,
    pastel,
    placed,
    polygon,
)

__all__ = [
    "Light",
    "draw_back",
    "draw_front",
    "ground_y",
    "horizon_y",
    "light",
    "outline",
    "pastel",
]

# Share of the height at which land meets sky, and at which objects stand.
_HORIZON = {
    "beach": 0.53,
    "sea": 0.53,
    "hills": 0.6,
    "forest": 0.62,
    "bamboo": 0.64,
    "desert": 0.6,
    "city": 0.62,
    "mountains": 0.62,
    "ricefield": 0.54,
    "studio": 0.62,
}
_GROUND = 0.84


def horizon_y(scene: Scene, height: float) -> float:
    """Where the land of a scene begins, in pixels from the top."""
    return (_HORIZON[scene.scene] + 0.025 * scene.backdrop.horizon) * height


def ground_y(scene: Scene, height: float) -> float:
    """Where standing objects have their foot, in pixels from the top."""
    return (_GROUND + 0.012 * scene.backdrop.horizon) * height


def _frame(scene: Scene, width: float, height: float) -> Frame:
    return Frame(
        width, height, min(width, height), horizon_y(scene, height), ground_y(scene, height)
    )


def draw_back(canvas: skia.Canvas, scene: Scene, width: float, height: float) -> None:
    """Everything behind the objects: the sky of the time and the land of the scene."""
    frame = _frame(scene, width, height)
    brush = Brush(canvas, scene, frame)
    if scene.scene != "studio":
        draw_sky(brush, frame)
    canvas.save()
    if scene.backdrop.land == 1:
        canvas.translate(width, 0)
        canvas.scale(-1, 1)
    _LANDS[scene.scene](brush, frame)
    canvas.restore()
    if scene.scene != "studio":
        draw_veil(brush, frame)
        draw_branch(brush, frame, frame.s)


def draw_front(canvas: skia.Canvas, scene: Scene, width: float, height: float) -> None:
    """Everything before the objects: the wave that carries them, and what falls."""
    frame = _frame(scene, width, height)
    brush = Brush(canvas, scene, frame)
    if scene.scene == "sea":
        # Objects float: the nearest waves hide a little of their foot.
        _wave(brush, frame, frame.ground - 0.025 * frame.s, 4)
        _wave(brush, frame, frame.ground + 0.4 * (frame.h - frame.ground), 5)
    if scene.scene != "studio":
        draw_fall(brush, frame)


def _below(brush: Brush, y: float, near: Colour, far: Colour) -> None:
    """Flat ground from `y` to the lower edge, from the colour far away to the one near by."""
    frame = brush.frame
    area = polygon(
        [
            (-frame.s, y),
            (frame.w + frame.s, y),
            (frame.w + frame.s, frame.h * 1.1),
            (-frame.s, frame.h * 1.1),
        ]
    )
    brush.fill(area, brush.fade([far, mix(far, near, 0.5), near], y, frame.h))


def _ridge(points: Sequence[tuple[float, float]], bottom: float) -> skia.Path:
    """A soft outline through points from left to right, closed at `bottom`."""
    path = skia.Path()
    path.moveTo(points[0][0], bottom)
    path.lineTo(*points[0])
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        middle = 0.5 * (x0 + x1)
        path.cubicTo(middle, y0, middle, y1, x1, y1)
    path.lineTo(points[-1][0], bottom)
    path.close()
    return path


def _repeated(frame: Frame, points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points (share of a tile, height) of one tile, repeated over the width and past its edges."""
    tile = frame.w / frame.tiles
    out = [((k + x) * tile, y) for k in range(-1, frame.tiles + 1) for x, y in points]
    return out


# Beach and sea


_WATER: tuple[Colour, ...] = (
    (70, 160, 214),
    (56, 146, 206),
    (74, 164, 216),
    (50, 136, 200),
    (66, 156, 212),
    (44, 126, 192),
)


def _wave(brush: Brush, frame: Frame, y: float, band: int) -> None:
    """One band of waves with a scalloped crest, down to the lower edge."""
    step = (0.17, 0.17, 0.25)[brush.jitter.land] * frame.s * (0.7 + 0.09 * band)
    high = 0.022 * frame.s * (0.6 + 0.16 * min(band, 2))
    count = int(frame.w / step) + 4
    shift = (0.5 * (band % 2) + 0.3 * brush.jitter.slide - 2.0) * step
    crest = skia.Path()
    crest.moveTo(shift, y)
    for k in range(count):
        x = shift + k * step
        crest.cubicTo(x + 0.3 * step, y + high, x + 0.7 * step, y + high, x + step, y - high * 0.4)
        crest.lineTo(x + step, y)
    wave = skia.Path(crest)
    wave.lineTo(shift + count * step, 1.2 * frame.h)
    wave.lineTo(shift, 1.2 * frame.h)
    wave.close()
    brush.fill(wave, brush.water(_WATER[band], snow=0.1))
    foam = brush.water(mix(_WATER[band], WHITE, 0.62), snow=0.4)
    brush.stroke(crest, foam, 0.009 * frame.s, edge=False)


def _sea(brush: Brush, frame: Frame) -> None:
    _below(brush, frame.horizon, brush.water(_WATER[0]), brush.water((96, 182, 226), far=0.2))
    if brush.jitter.land == 2:
        x = (0.86 + 0.05 * brush.jitter.slide) * frame.w
        island = skia.Path()
        island.addArc(
            skia.Rect.MakeXYWH(
                x - 0.16 * frame.s, frame.horizon - 0.06 * frame.s, 0.32 * frame.s, 0.12 * frame.s
            ),
            180,
            180,
        )
        brush.fill(island, brush.land((96, 160, 128), far=0.3, snow=0.8))
    depth = frame.ground - frame.horizon
    for band, share in enumerate((0.14, 0.36, 0.64)):
        _wave(brush, frame, frame.horizon + share * depth, band + 1)
    _glitter(brush, frame, frame.ground)


def _glitter(brush: Brush, frame: Frame, bottom: float) -> None:
    """The path of light on the water under a low sun or the moon."""
    colour = {"sunset": (255, 214, 128), "night": (196, 204, 224)}.get(brush.scene.time)
    if colour is None:
        return
    s = frame.s
    x = across(brush.scene) * frame.w
    if brush.jitter.land == 1:
        x = frame.w - x
    count = 4
    gap = (bottom - frame.horizon) / count
    bars = skia.Path()
    for k in range(count):
        half = (0.13, 0.08, 0.1, 0.06)[k] * s
        y = frame.horizon + (k + 0.5) * gap
        middle = x + (0.012 if k % 2 else -0.012) * s
        high = min(0.012 * s, 0.3 * gap)
        rect = skia.Rect.MakeLTRB(middle - half, y - high, middle + half, y + high)
        bars.addRoundRect(rect, high, high)
    brush.fill(bars, brush.paint(brush.raw(colour), 0.8), edge=False)


def _beach(brush: Brush, frame: Frame) -> None:
    s = frame.s
    _below(
        brush, frame.horizon, brush.water((52, 150, 208)), brush.water((104, 192, 228), far=0.15)
    )
    _glitter(brush, frame, frame.horizon + 0.26 * (frame.ground - frame.horizon))
    shore = frame.horizon + 0.36 * (frame.ground - frame.horizon)
    swing = 0.035 * s * (1 if brush.jitter.land < 2 else -1)
    points = [(0.0, -swing), (0.34, swing), (0.68, -0.4 * swing)]
    line = [
        (x + 0.05 * brush.jitter.slide * frame.w, shore + y) for x, y in _repeated(frame, points)
    ]
    foam = [(x, y - 0.035 * s) for x, y in line]
    brush.fill(_ridge(foam, 1.1 * frame.h), brush.land((246, 252, 255)))
    wet = brush.land((222, 186, 126), snow=0.5)
    brush.fill(_ridge(line, 1.1 * frame.h), wet, edge=False)
    dry = [(x, y + 0.04 * s) for x, y in line]
    sand = brush.fade(
        [brush.land((250, 222, 156), snow=0.86), brush.land((238, 200, 128), snow=0.8)],
        shore,
        frame.h,
    )
    brush.fill(_ridge(dry, 1.1 * frame.h), sand, edge=False)
    foot = frame.horizon + 0.86 * (frame.ground - frame.horizon)
    if brush.jitter.land == 2:
        _palm(brush, frame.w - 0.02 * s, foot + 0.03 * s, -0.1 * s, 0.48 * s)
        _palm(brush, 0.0, foot - 0.02 * s, 0.05 * s, 0.26 * s)
    else:
        lean = (0.13 + 0.03 * brush.jitter.slide) * s
        _palm(brush, 0.03 * s, foot + 0.04 * s, lean, 0.52 * s)


def _leaf() -> skia.Path:
    path = skia.Path()
    path.moveTo(0, 0)
    path.cubicTo(0.3, -0.32, 0.8, -0.22, 1.0, 0.2)
    path.cubicTo(0.72, 0.02, 0.35, -0.04, 0, 0.07)
    path.close()
    return path


_LEAF = _leaf()
_MIRROR = skia.Matrix()
_MIRROR.setScale(-1, 1)
_LEAF_LEFT = skia.Path()
_LEAF.transform(_MIRROR, _LEAF_LEFT)


def _palm(brush: Brush, x: float, y: float, lean: float, tall: float) -> None:
    top_x, top_y = x + lean, y - tall
    trunk = skia.Path()
    trunk.moveTo(x, y)
    trunk.quadTo(x + 0.15 * lean, y - 0.6 * tall, top_x, top_y)
    brush.stroke(trunk, brush.land((160, 110, 70)), 0.075 * tall)
    reach = 0.44 * tall
    under, over = skia.Path(), skia.Path()
    for leaf, turn in ((_LEAF, 45), (_LEAF_LEFT, -45), (_LEAF, -62), (_LEAF_LEFT, 62)):
        under.addPath(placed(leaf, top_x, top_y, 0.92 * reach, turn))
    for leaf, turn in ((_LEAF, 6), (_LEAF_LEFT, -6), (_LEAF, -30), (_LEAF_LEFT, 30)):
        over.addPath(placed(leaf, top_x, top_y, reach, turn))
    brush.fill(under, brush.land((34, 124, 74), snow=0.3))
    brush.fill(over, brush.land((58, 164, 88), snow=0.6))
    nuts = skia.Path()
    nuts.addCircle(top_x - 0.03 * tall, top_y + 0.05 * tall, 0.045 * tall)
    nuts.addCircle(top_x + 0.05 * tall, top_y + 0.05 * tall, 0.045 * tall)
    brush.fill(nuts, brush.land((122, 78, 48)))


# Hills, mountains, desert


def _mound(brush: Brush, x: float, top: float, rx: float, ry: float, colour: Colour) -> None:
    path = skia.Path()
    path.addOval(skia.Rect.MakeLTRB(x - rx, top, x + rx, top + 2 * ry))
    brush.fill(path, colour)


def _hills(brush: Brush, frame: Frame) -> None:
    s, tile = frame.s, frame.w / frame.tiles
    wide = tile / s if tile > s else 1.0
    slide = 0.05 * brush.jitter.slide
    back = brush.land((136, 206, 146), far=0.3, snow=0.8)
    middle = brush.land((110, 194, 98), far=0.12, snow=0.8)
    _below(
        brush,
        frame.horizon + 0.04 * s,
        brush.land((84, 170, 74), snow=0.9),
        brush.land((120, 200, 92), snow=0.9),
    )
    # Each: share of the tile, top above the horizon and half width in shorter sides.
    far, near = (
        (((0.3, 0.16, 0.32), (0.86, 0.1, 0.3)), ((0.0, 0.06, 0.36), (0.62, 0.03, 0.34))),
        (((0.3, 0.16, 0.32), (0.86, 0.1, 0.3)), ((0.0, 0.06, 0.36), (0.62, 0.03, 0.34))),
        (((0.08, 0.15, 0.24), (0.52, 0.18, 0.24)), ((0.3, 0.06, 0.26), (0.84, 0.08, 0.32))),
    )[brush.jitter.land]
    for group, colour in ((far, back), (near, middle)):
        for k in range(-1, frame.tiles + 1):
            for x, top, rx in group:
                _mound(
                    brush,
                    (k + x + slide) * tile,
                    frame.horizon - top * s,
                    rx * s * wide,
                    0.32 * s,
                    colour,
                )
    front = [(0.1, 0.1), (0.55, 0.17)] if brush.jitter.land < 2 else [(0.1, 0.17), (0.55, 0.1)]
    crest = [(x + slide * tile, frame.horizon + y * s) for x, y in _repeated(frame, front)]
    brush.fill(
        _ridge(crest, 1.1 * frame.h),
        brush.fade(
            [brush.land((104, 188, 80), snow=0.92), brush.land((72, 156, 66), snow=0.86)],
            frame.horizon,
            frame.h,
        ),
    )


def _mountains(brush: Brush, frame: Frame) -> None:
    s, tile = frame.s, frame.w / frame.tiles
    wide = tile / s if tile > s else 1.0
    base = frame.horizon + 0.06 * s
    slide = 0.05 * brush.jitter.slide
    # Each: share of the tile, height and half width in shorter sides; far ones first.
    peaks = (
        ((0.5, 0.22, 0.3), (0.14, 0.36, 0.3), (0.84, 0.3, 0.28)),
        ((0.5, 0.22, 0.3), (0.14, 0.36, 0.3), (0.84, 0.3, 0.28)),
        ((0.0, 0.24, 0.26), (0.98, 0.24, 0.26), (0.48, 0.36, 0.36)),
    )[brush.jitter.land]
    for order, (px, tall, half) in enumerate(peaks):
        far = 0.34 if order == 0 else 0.12
        face = brush.land((122, 140, 172), far=far, snow=0.25)
        shade = brush.land((92, 108, 144), far=far, snow=0.2)
        cap = brush.land((250, 252, 255), far=0.4 * far)
        for k in range(frame.tiles):
            x, y = (k + px + slide) * tile, base - tall * s
            rx, ry = half * s * wide, tall * s

            def at(
                across: float,
                down: float,
                x: float = x,
                y: float = y,
                rx: float = rx,
                ry: float = ry,
            ) -> tuple[float, float]:
                return x + across * rx, y + down * ry

            brush.fill(polygon([at(0, 0), at(1, 1), at(-1, 1)]), face)
            brush.fill(polygon([at(0, 0), at(1, 1), at(0.2, 1), at(-0.1, 0.55)]), shade, False)
            zigzag = [
                at(0, 0), at(0.4, 0.4), at(0.2, 0.33), at(0.06, 0.5), at(-0.1, 0.34),
                at(-0.24, 0.46), at(-0.4, 0.4),
            ]  # fmt: skip
            brush.fill(polygon(zigzag), cap)
    foothills = [(0.0, 0.0), (0.4, 0.035), (0.75, -0.01)]
    line = [(x, frame.horizon + y * s) for x, y in _repeated(frame, foothills)]
    brush.fill(_ridge(line, 1.1 * frame.h), brush.land((86, 152, 120), far=0.12, snow=0.8))
    meadow = [(x, y + 0.09 * s) for x, y in line]
    brush.fill(
        _ridge(meadow, 1.1 * frame.h),
        brush.fade(
            [brush.land((122, 186, 108), snow=0.92), brush.land((92, 160, 88), snow=0.86)],
            frame.horizon,
            frame.h,
        ),
    )


def _desert(brush: Brush, frame: Frame) -> None:
    s = frame.s
    slide = 0.05 * brush.jitter.slide
    _below(
        brush,
        frame.horizon + 0.08 * s,
        brush.land((240, 186, 104), snow=0.7),
        brush.land((246, 200, 122), snow=0.7),
    )
    dunes = (
        (((0.25, -0.13), (0.8, 0.03)), ((0.02, 0.04), (0.68, -0.05))),
        (((0.25, -0.13), (0.8, 0.03)), ((0.02, 0.04), (0.68, -0.05))),
        (((0.1, 0.02), (0.6, -0.12)), ((0.2, -0.03), (0.8, 0.06))),
    )[brush.jitter.land]
    colours: tuple[tuple[Colour, Colour], ...] = (
        ((232, 168, 98), (214, 142, 84)),
        ((244, 194, 116), (226, 162, 92)),
    )
    for order, (points, (lit, shaded)) in enumerate(zip(dunes, colours, strict=True)):
        line = [(x + slide * frame.w, frame.horizon + y * s) for x, y in _repeated(frame, points)]
        far = 0.14 if order == 0 else 0.0
        dune = _ridge(line, 1.1 * frame.h)
        brush.fill(dune, brush.land(lit, far=far, snow=0.74))
        # The lee of each crest lies in shade, under a soft line running down from it.
        for k, (x, y) in enumerate(line[:-1]):
            nx, ny = line[k + 1]
            if y >= ny:
                continue
            lee = skia.Path()
            lee.moveTo(x, y)
            middle = 0.5 * (x + nx)
            lee.cubicTo(middle, y, middle, ny, nx, ny)
            lee.lineTo(nx, ny + 0.1 * s)
            lee.cubicTo(middle, ny + 0.1 * s, x - 0.1 * s, ny + 0.06 * s, x, y)
            lee.close()
            brush.fill(lee, brush.land(shaded, far=far, snow=0.5), edge=False)
    floor = [
        (x + slide * frame.w, frame.horizon + 0.1 * s + y * s)
        for x, y in _repeated(frame, [(0.2, 0.03), (0.7, 0.0)])
    ]
    brush.fill(
        _ridge(floor, 1.1 * frame.h),
        brush.fade(
            [brush.land((250, 208, 132), snow=0.9), brush.land((238, 182, 102), snow=0.84)],
            frame.horizon,
            frame.h,
        ),
    )
    foot = frame.horizon + 0.72 * (frame.ground - frame.horizon)
    if brush.jitter.land == 2:
        _cactus(brush, frame.w - 0.1 * s, foot, 0.3 * s)
        _cactus(brush, 0.07 * s, foot - 0.05 * s, 0.2 * s)
    else:
        _cactus(brush, (0.09 + 0.02 * brush.jitter.slide) * s, foot, 0.38 * s)


def _cactus(brush: Brush, x: float, y: float, tall: float) -> None:
    path = skia.Path()
    path.moveTo(x, y - 0.06 * tall)
    path.lineTo(x, y - tall)
    for side, low, high in ((-1, 0.38, 0.74), (1, 0.5, 0.86)):
        path.moveTo(x, y - low * tall)
        path.lineTo(x + side * 0.13 * tall, y - low * tall)
        path.quadTo(x + side * 0.25 * tall, y - low * tall, x + side * 0.25 * tall, y - high * tall)
    brush.stroke(path, brush.land((58, 142, 82), snow=0.12), 0.15 * tall)
    ribs = skia.Path()
    ribs.moveTo(x, y - 0.1 * tall)
    ribs.lineTo(x, y - 0.98 * tall)
    brush.stroke(ribs, brush.land((102, 180, 108), snow=0.2), 0.03 * tall, edge=False)
    if brush.snowy:
        cap = skia.Path()
        cap.addCircle(x, y - tall, 0.09 * tall)
        cap.addCircle(x - 0.25 * tall, y - 0.75 * tall, 0.08 * tall)
        cap.addCircle(x + 0.25 * tall, y - 0.87 * tall, 0.08 * tall)
        brush.fill(cap, brush.land(WHITE))


# Forest and bamboo


_FIR = (
    (0.0, 0.0), (0.2, 0.34), (0.12, 0.34), (0.29, 0.64), (0.2, 0.64), (0.38, 0.96),
    (-0.38, 0.96), (-0.2, 0.64), (-0.29, 0.64), (-0.12, 0.34), (-0.2, 0.34),
)  # fmt: skip
_FIR_PATH = polygon(_FIR)
_FIR_CAP = polygon(
    [(0.0, 0.0), (0.2, 0.34), (0.07, 0.28), (0.0, 0.36), (-0.07, 0.28), (-0.2, 0.34)]
)


def _fir(brush: Brush, x: float, foot: float, tall: float, colour: Colour) -> None:
    trunk = skia.Path()
    trunk.addRect(skia.Rect.MakeLTRB(x - 0.05 * tall, foot - 0.1 * tall, x + 0.05 * tall, foot))
    brush.fill(trunk, brush.land((112, 76, 54)))
    brush.fill(placed(_FIR_PATH, x, foot - tall, tall), colour)
    if brush.snowy:
        brush.fill(placed(_FIR_CAP, x, foot - tall, tall), brush.land(WHITE), edge=False)


def _forest(brush: Brush, frame: Frame) -> None:
    s = frame.s
    slide = 0.05 * brush.jitter.slide
    step, flip = ((0.17, 0), (0.17, 0), (0.21, 1))[brush.jitter.land]
    rows = (
        (-0.02, 0.24, 0.8 * step, (98, 160, 128), 0.36),
        (0.05, 0.28, step, (54, 124, 90), 0.12),
    )
    for order, (drop, tall, gap, green, far) in enumerate(rows):
        colour = brush.land(green, far=far, snow=0.22)
        count = max(3, round(frame.w / (gap * s)))
        width = frame.w / count
        whole, caps = skia.Path(), skia.Path()
        for k in range(-1, count + 2):
            x = (k + 0.5 * order + slide / gap) * width
            high = tall * (1.0 if (k + flip) % 2 else 0.78) * s
            y = frame.horizon + drop * s - high
            whole.addPath(placed(_FIR_PATH, x, y, high))
            caps.addPath(placed(_FIR_CAP, x, y, high))
        brush.fill(whole, colour)
        if brush.snowy:
            brush.fill(caps, brush.land(WHITE, far=far), edge=False)
        floor = frame.horizon + (drop - 0.012) * s
        _below(brush, floor, colour, colour)
    meadow = [(x, frame.horizon + y * s) for x, y in _repeated(frame, [(0.2, 0.06), (0.7, 0.09)])]
    brush.fill(
        _ridge(meadow, 1.1 * frame.h),
        brush.fade(
            [brush.land((96, 164, 92), snow=0.92), brush.land((62, 126, 76), snow=0.84)],
            frame.horizon,
            frame.h,
        ),
    )
    near = brush.land((34, 98, 72), snow=0.1)
    foot = frame.horizon + 0.1 * s
    left, right = ((0.5, 0.4), (0.5, 0.4), (0.36, 0.52))[brush.jitter.land]
    _fir(brush, frame.w - (0.16 - slide) * s, foot, 0.72 * right * s, near)
    _fir(brush, (0.01 + slide) * s, foot + 0.06 * s, left * s, near)
    _fir(brush, frame.w - (0.0 - slide) * s, foot + 0.06 * s, right * s, near)


def _bamboo(brush: Brush, frame: Frame) -> None:
    s = frame.s
    slide = 0.05 * brush.jitter.slide
    thin = brush.land((150, 204, 120), far=0.3, snow=0.1)
    count = max(4, round(frame.w / (0.145 * s)))
    gap = frame.w / count
    stalks = skia.Path()
    for k in range(-1, count + 1):
        x = (k + 0.5 + (0.16 if k % 2 else -0.1)) * gap + slide * s
        half = (0.011 if k % 2 else 0.015) * s
        stalks.addRect(skia.Rect.MakeLTRB(x - half, -0.1 * s, x + half, frame.horizon + 0.05 * s))
    brush.fill(stalks, thin)
    bank = [(x, frame.horizon + y * s) for x, y in _repeated(frame, [(0.2, 0.0), (0.7, -0.035)])]
    brush.fill(_ridge(bank, 1.1 * frame.h), brush.land((104, 168, 92), far=0.16, snow=0.85))
    _below(
        brush,
        frame.horizon + 0.07 * s,
        brush.land((112, 140, 72), snow=0.86),
        brush.land((146, 178, 92), snow=0.92),
    )
    foot = frame.horizon + 0.6 * (frame.ground - frame.horizon)
    edges = (
        ((0.035, 0.06, 0.0), (0.14, 0.045, -0.09), (0.9, 0.045, -0.06), (0.985, 0.06, 0.03)),
        ((0.035, 0.06, 0.0), (0.14, 0.045, -0.09), (0.9, 0.045, -0.06), (0.985, 0.06, 0.03)),
        ((0.02, 0.05, -0.04), (0.8, 0.04, -0.1), (0.88, 0.055, -0.02), (0.98, 0.06, 0.05)),
    )[brush.jitter.land]
    for x, wide, drop in edges:
        # Places are in shorter sides from the nearer edge, whatever the width is.
        at = x * s if x < 0.5 else frame.w - (1.0 - x) * s
        _stalk(brush, at + 0.4 * slide * s, foot + drop * s, wide * s)


def _stalk(brush: Brush, x: float, foot: float, wide: float) -> None:
    half = 0.5 * wide
    joint = 3.4 * wide
    body, shine, nodes = skia.Path(), skia.Path(), skia.Path()
    body.addRect(skia.Rect.MakeLTRB(x - half, -wide, x + half, foot))
    shine.addRect(skia.Rect.MakeLTRB(x - 0.6 * half, -wide, x - 0.15 * half, foot))
    y = foot - 0.6 * joint
    leaves = skia.Path()
    inward = 1 if x < 0.5 * brush.frame.w else -1
    k = 0
    while y > -wide:
        rect = skia.Rect.MakeLTRB(x - 1.25 * half, y - 0.2 * half, x + 1.25 * half, y + 0.25 * half)
        nodes.addRoundRect(rect, 0.2 * half, 0.2 * half)
        if k % 2 == 1:
            for turn in (28, -8):
                leaf = _BLADE if inward > 0 else _BLADE_LEFT
                leaves.addPath(placed(leaf, x + inward * half, y, 2.3 * wide, inward * turn))
        k += 1
        y -= joint
    brush.fill(body, brush.land((112, 178, 76), snow=0.08))
    brush.fill(shine, brush.land((164, 212, 112), snow=0.1), edge=False)
    brush.fill(nodes, brush.land((70, 128, 58), snow=0.35))
    brush.fill(leaves, brush.land((64, 146, 70), snow=0.3))


def _blade() -> skia.Path:
    path = skia.Path()
    path.moveTo(0, 0)
    path.quadTo(0.42, -0.2, 1.0, 0.06)
    path.quadTo(0.4, 0.2, 0, 0)
    path.close()
    return path


_BLADE = _blade()
_BLADE_LEFT = skia.Path()
_BLADE.transform(_MIRROR, _BLADE_LEFT)


# City, ricefield, studio


# Each: width and height in shorter sides, colour.
_HOUSES: tuple[tuple[float, float, Colour], ...] = (
    (0.19, 0.36, (214, 120, 104)),
    (0.15, 0.24, (240, 206, 150)),
    (0.2, 0.15, (120, 158, 190)),
    (0.16, 0.2, (226, 168, 122)),
    (0.15, 0.13, (152, 184, 178)),
    (0.17, 0.3, (110, 136, 178)),
)


def _city(brush: Brush, frame: Frame) -> None:
    s = frame.s
    base = frame.horizon + 0.05 * s
    slide = 0.05 * brush.jitter.slide
    far = brush.land((160, 178, 204), far=0.4, snow=0.1)
    towers = skia.Path()
    count = max(4, round(frame.w / (0.15 * s)))
    gap = frame.w / count
    for k in range(-1, count + 1):
        tall = (0.3, 0.22, 0.34, 0.19, 0.27)[(k + 2 * brush.jitter.land) % 5]
        x = (k + slide * 2) * gap
        towers.addRect(skia.Rect.MakeLTRB(x, base - tall * s, x + 0.86 * gap, base))
    brush.fill(towers, far)
    houses = _HOUSES if brush.jitter.land < 2 else _HOUSES[3:] + _HOUSES[:3]
    total = sum(house[0] for house in houses)
    turns = max(1, round(frame.w / s / total))
    grow = frame.w / (turns * total * s)
    dark = brush.scene.time in ("night", "storm")
    pane = brush.raw((255, 220, 110)) if dark else brush.land((226, 242, 252), snow=0.2)
    panes = skia.Path()
    x = slide * s - houses[-1][0] * s * grow
    for wide, tall, colour in (houses[-1], *(houses * turns), houses[0]):
        width, height = wide * s * grow, tall * s
        wall = skia.Path()
        wall.addRect(skia.Rect.MakeLTRB(x, base - height, x + width, base + 0.02 * s))
        brush.fill(wall, brush.land(colour))
        if brush.snowy:
            roof = skia.Path()
            roof.addRect(
                skia.Rect.MakeLTRB(
                    x, base - height - 0.012 * s, x + width, base - height + 0.02 * s
                )
            )
            brush.fill(roof, brush.land(WHITE), edge=False)
        columns = 3 if wide > 0.165 else 2
        step = width / columns
        rows = int((height - 0.03 * s) / (0.072 * s))
        for row in range(rows):
            for column in range(columns):
                px = x + (column + 0.5) * step
                py = base - height + (0.052 + 0.072 * row) * s
                panes.addRect(
                    skia.Rect.MakeLTRB(px - 0.018 * s, py - 0.02 * s, px + 0.018 * s, py + 0.02 * s)
                )
        x += width
    brush.fill(panes, pane, edge=False)
    walk = brush.land((206, 204, 200), snow=0.8)
    _below(brush, base, walk, walk)
    kerb = base + 0.32 * (frame.ground - base)
    _below(
        brush,
        kerb,
        brush.land((92, 96, 108), snow=0.66),
        brush.land((112, 116, 128), snow=0.72),
    )
    dash = 0.2 * s
    lines = skia.Path()
    y = frame.ground + 0.5 * (frame.h - frame.ground)
    for k in range(-1, int(frame.w / dash) + 2):
        left = (k + 0.25 + slide * 2) * dash
        lines.addRect(skia.Rect.MakeLTRB(left, y - 0.012 * s, left + 0.55 * dash, y + 0.012 * s))
    brush.fill(lines, brush.land((250, 240, 200), snow=0.2), edge=False)


def _ricefield(brush: Brush, frame: Frame) -> None:
    s = frame.s
    slide = 0.05 * brush.jitter.slide
    # A lone volcano far away, with a flat crater.
    x = ((0.68, 0.68, 0.36)[brush.jitter.land] + slide) * frame.w
    base, tall = frame.horizon + 0.05 * s, 0.26 * s
    cone = skia.Path()
    cone.moveTo(x - 0.42 * s, base)
    cone.quadTo(x - 0.14 * s, base - 0.3 * tall, x - 0.055 * s, base - tall)
    cone.lineTo(x + 0.055 * s, base - tall)
    cone.quadTo(x + 0.14 * s, base - 0.3 * tall, x + 0.42 * s, base)
    cone.close()
    brush.fill(cone, brush.land((112, 158, 168), far=0.32, snow=0.45))
    sky = mix(brush.weather.sky[2], brush.weather.sky[1], 0.5)
    water = brush.raw(mix(sky, brush.land((176, 220, 236)), 0.35))
    bank = brush.land((66, 118, 58), snow=0.12)
    greens: tuple[Colour, ...] = (
        (92, 164, 88), (132, 196, 84), (104, 178, 76), (150, 206, 88), (112, 186, 76),
        (142, 202, 84), (100, 172, 72),
    )  # fmt: skip
    depth = frame.h - frame.horizon
    wave = 1.0 if brush.jitter.land < 2 else -1.0
    for k, share in enumerate((0.0, 0.12, 0.29, 0.5, 0.77)):
        swing = (0.02 + 0.007 * k) * s * wave
        bend = (1.0 + 0.12 * k) * swing
        shift = (0.05 * k + 0.5 * slide * (k + 1)) * frame.w / frame.tiles
        points = [
            (px + shift, frame.horizon + share * depth + py)
            for px, py in _repeated(frame, [(0.12, bend), (0.62, -bend)])
        ]
        thick = (0.016 + 0.006 * k) * s
        brush.fill(_ridge(points, 1.1 * frame.h), bank)
        if k:
            wet = [(px, py + 0.4 * thick) for px, py in points]
            brush.fill(_ridge(wet, 1.1 * frame.h), water, edge=False)
            points = [(px, py + 1.5 * thick) for px, py in points]
        brush.fill(_ridge(points, 1.1 * frame.h), brush.land(greens[k], snow=0.72), edge=False)


def _studio(brush: Brush, frame: Frame) -> None:
    s, canvas = frame.s, brush.canvas
    jitter = brush.jitter
    walls: tuple[Colour, ...] = ((208, 192, 180), (208, 192, 180), (184, 192, 204))
    floors: tuple[Colour, ...] = ((228, 216, 204), (228, 216, 204), (206, 212, 222))
    wall, floor = (brush.land(walls[jitter.land]), brush.land(floors[jitter.land]))
    canvas.drawRect(skia.Rect.MakeWH(frame.w, frame.h), brush.paint(wall))
    sweep = frame.horizon + 0.02 * s
    bow = _ridge(
        [(-0.02 * frame.w, sweep - 0.06 * s), (0.5 * frame.w, sweep + 0.03 * s),
         (1.02 * frame.w, sweep - 0.06 * s)],
        1.1 * frame.h,
    )  # fmt: skip
    brush.fill(bow, brush.fade([floor, brush.land(mix(floors[jitter.land], WHITE, 0.3)), floor],
                               sweep, frame.h))  # fmt: skip
    spot = skia.Path()
    spot.addOval(
        skia.Rect.MakeLTRB(
            0.5 * frame.w - 0.46 * frame.w, frame.ground - 0.07 * s,
            0.5 * frame.w + 0.46 * frame.w, frame.ground + 0.07 * s,
        )
    )  # fmt: skip
    brush.fill(spot, brush.paint(brush.raw((255, 250, 236)), 0.45), edge=False)
    _window(brush, frame)
    _softbox(brush, frame)


def _window(brush: Brush, frame: Frame) -> None:
    """A wide window high in the wall: the sky of the time, and what falls from it."""
    s, canvas = frame.s, brush.canvas
    left = 0.06 * frame.w + 0.02 * s * brush.jitter.slide
    right = frame.w - 0.3 * s if frame.w > 0.9 * frame.h else 0.72 * frame.w
    top, bottom = 0.06 * frame.h, frame.horizon - 0.13 * s
    width, height = right - left, bottom - top
    wood = brush.land((250, 248, 244))
    frame_box = skia.Path()
    edge = 0.028 * s
    frame_box.addRect(skia.Rect.MakeLTRB(left - edge, top - edge, right + edge, bottom + edge))
    brush.fill(frame_box, wood)
    pane = Frame(width, height, min(1.3 * min(width, height), s), height, height)
    canvas.save()
    canvas.clipRect(skia.Rect.MakeLTRB(left, top, right, bottom), doAntiAlias=True)
    canvas.translate(left, top)
    if brush.jitter.land == 1:
        # Undo the mirror of the land: suns and streaks keep their side and slant.
        canvas.translate(width, 0)
        canvas.scale(-1, 1)
    draw_sky(brush, pane)
    draw_branch(brush, pane, pane.s)
    draw_fall(brush, pane)
    canvas.restore()
    bars = skia.Path()
    middle = 0.5 * (left + right)
    bars.addRect(skia.Rect.MakeLTRB(middle - 0.4 * edge, top, middle + 0.4 * edge, bottom))
    canvas.drawPath(bars, brush.paint(wood))
    if brush.stroke_ink is not None:
        rim = skia.Path()
        rim.addRect(skia.Rect.MakeLTRB(left, top, right, bottom))
        canvas.drawPath(rim, brush.stroke_ink)
    sill = skia.Path()
    sill.addRect(
        skia.Rect.MakeLTRB(left - 2 * edge, bottom + edge, right + 2 * edge, bottom + 2.2 * edge)
    )
    brush.fill(sill, brush.land((228, 220, 212)))


def _softbox(brush: Brush, frame: Frame) -> None:
    """A lamp with a square white screen on a tripod, at the edge that is free."""
    s = frame.s
    x = frame.w - 0.12 * s
    foot = frame.horizon + 0.6 * (frame.ground - frame.horizon)
    head = frame.horizon - 0.28 * s
    dark = brush.land((58, 60, 70))
    legs = skia.Path()
    legs.moveTo(x, head)
    legs.lineTo(x, foot - 0.02 * s)
    knee = foot - 0.16 * s
    legs.moveTo(x, knee)
    legs.lineTo(x - 0.09 * s, foot)
    legs.moveTo(x, knee)
    legs.lineTo(x + 0.09 * s, foot)
    brush.stroke(legs, dark, 0.018 * s)
    shell = polygon(
        [
            (x - 0.12 * s, head + 0.07 * s),
            (x - 0.06 * s, head - 0.14 * s),
            (x + 0.13 * s, head - 0.09 * s),
            (x + 0.08 * s, head + 0.13 * s),
        ]
    )
    brush.fill(shell, dark)
    screen = polygon(
        [
            (x - 0.1 * s, head + 0.055 * s),
            (x - 0.047 * s, head - 0.12 * s),
            (x + 0.107 * s, head - 0.078 * s),
            (x + 0.065 * s, head + 0.108 * s),
        ]
    )
    brush.fill(screen, brush.raw((255, 250, 226)), edge=False)


_LANDS = {
    "beach": _beach,
    "sea": _sea,
    "hills": _hills,
    "forest": _forest,
    "bamboo": _bamboo,
    "desert": _desert,
    "city": _city,
    "mountains": _mountains,
    "ricefield": _ricefield,
    "studio": _studio,
}
