"""Time of day and weather: the colours they give, the sky they show, and what falls from it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import skia

from .spec import Scene

Colour = tuple[float, float, float]

WHITE: Colour = (255, 255, 255)
INK: Colour = (38, 30, 56)


@dataclass(frozen=True, slots=True)
class Light:
    """How the time of day colours what stands in it.

    A colour is multiplied by `tint`, then moved towards `haze[0]` by the share `haze[1]`, then
    lightened by the amount `anime` of that style.
    """

    tint: Colour
    haze: tuple[Colour, float]
    anime: float = 0.0

    def on(self, rgb: Colour) -> Colour:
        """The colour `rgb` (0..255) as it looks in this light."""
        return pastel(mix(times(rgb, self.tint), *self.haze), self.anime)


@dataclass(frozen=True, slots=True)
class Weather:
    """The colours of one time."""

    sky: tuple[Colour, Colour, Colour]  # top, middle, horizon
    land: Light
    things: Light


WEATHERS = {
    "day": Weather(
        ((78, 166, 240), (136, 202, 249), (206, 236, 253)),
        Light((1.0, 1.0, 1.0), (WHITE, 0.0)),
        Light((1.0, 1.0, 1.0), (WHITE, 0.0)),
    ),
    "sunset": Weather(
        ((206, 84, 140), (250, 132, 92), (255, 206, 112)),
        Light((0.98, 0.72, 0.60), ((250, 120, 70), 0.14)),
        Light((1.05, 0.88, 0.72), (WHITE, 0.0)),
    ),
    "night": Weather(
        ((12, 20, 58), (24, 38, 94), (52, 72, 138)),
        Light((0.34, 0.46, 0.74), ((30, 48, 120), 0.36)),
        Light((0.62, 0.66, 0.82), (WHITE, 0.0)),
    ),
    "storm": Weather(
        ((50, 54, 68), (78, 84, 100), (118, 124, 138)),
        Light((0.56, 0.60, 0.66), ((88, 94, 108), 0.22)),
        Light((0.75, 0.78, 0.85), (WHITE, 0.0)),
    ),
    "fog": Weather(
        ((220, 225, 228), (230, 233, 234), (236, 238, 238)),
        Light((0.95, 0.97, 1.0), ((222, 227, 229), 0.58)),
        Light((1.0, 1.0, 1.0), ((222, 227, 229), 0.25)),
    ),
    "rain": Weather(
        ((98, 122, 150), (128, 152, 178), (164, 184, 204)),
        Light((0.72, 0.80, 0.88), ((130, 152, 178), 0.22)),
        Light((0.88, 0.92, 0.98), (WHITE, 0.0)),
    ),
    "snow": Weather(
        ((126, 160, 206), (154, 184, 221), (184, 207, 233)),
        Light((0.92, 0.96, 1.02), ((226, 235, 246), 0.1)),
        Light((0.96, 0.98, 1.02), (WHITE, 0.0)),
    ),
    "blossoms": Weather(
        ((249, 178, 208), (253, 208, 224), (255, 236, 236)),
        Light((1.02, 0.97, 0.98), ((255, 214, 226), 0.14)),
        Light((1.02, 0.98, 0.99), (WHITE, 0.0)),
    ),
}

# Share of the width at which backdrop.sky puts sun, moon and bolt.
_ACROSS = (0.19, 0.52, 0.81)


def across(scene: Scene) -> float:
    """Share of the width at which sun, moon or bolt is, clear of what stands at the edges."""
    place = _ACROSS[scene.backdrop.sky]
    if scene.scene == "beach":
        # The palm is at the left edge in the first outline, else at the right one.
        return (0.28 if scene.backdrop.land == 0 else 0.02) + 0.7 * place
    if scene.scene in ("bamboo", "forest"):
        return 0.5 + 0.72 * (place - 0.5)
    return place


def mix(rgb: Colour, towards: Colour, share: float) -> Colour:
    """`rgb` moved towards another colour by a share, 0..1."""
    keep = 1.0 - share
    return (
        rgb[0] * keep + towards[0] * share,
        rgb[1] * keep + towards[1] * share,
        rgb[2] * keep + towards[2] * share,
    )


def times(rgb: Colour, factors: Colour) -> Colour:
    """`rgb` multiplied channel by channel, not above white."""
    return (
        min(255.0, rgb[0] * factors[0]),
        min(255.0, rgb[1] * factors[1]),
        min(255.0, rgb[2] * factors[2]),
    )


def pastel(rgb: Colour, amount: float) -> Colour:
    """`rgb` lighter and more saturated by the amount of the style "anime"."""
    if amount <= 0.0:
        return rgb
    light = mix(rgb, WHITE, 0.15 * amount)
    grey = 0.3 * light[0] + 0.59 * light[1] + 0.11 * light[2]
    more = 1.0 + 0.28 * amount
    r, g, b = (min(255.0, max(0.0, grey + (c - grey) * more)) for c in light)
    return (r, g, b)


def anime(scene: Scene) -> float:
    """The amount of the style "anime" in a scene, 0 when it has another style or none."""
    return max(0.0, scene.amount) if scene.style == "anime" else 0.0


def light(scene: Scene) -> Light:
    """The light in which the objects of a scene stand."""
    base = WEATHERS[scene.time].things
    warm = 0.03 * scene.backdrop.warmth
    tint = (base.tint[0] * (1 + warm), base.tint[1], base.tint[2] * (1 - warm))
    return Light(tint, base.haze, anime(scene))


def outline(canvas: skia.Canvas, path: skia.Path, scene: Scene, shorter_side: float) -> None:
    """Stroke a path with dark ink as strongly as the style "anime" asks; nothing without it."""
    amount = anime(scene)
    if amount > 0.0:
        canvas.drawPath(path, _ink(amount, shorter_side))


def _ink(amount: float, shorter_side: float) -> skia.Paint:
    return skia.Paint(
        AntiAlias=True,
        Color=skia.Color(*(int(c) for c in INK), int(255 * min(0.95, 0.35 + 0.5 * amount))),
        Style=skia.Paint.kStroke_Style,
        StrokeWidth=0.007 * shorter_side * min(1.5, amount),
        StrokeJoin=skia.Paint.kRound_Join,
        StrokeCap=skia.Paint.kRound_Cap,
    )


@dataclass(frozen=True, slots=True)
class Frame:
    """The lengths of a picture, in pixels."""

    w: float
    h: float
    s: float  # the shorter side, unit of nearly everything drawn
    horizon: float
    ground: float

    @property
    def tiles(self) -> int:
        """How often a pattern made for a square repeats across the width."""
        return max(1, round(self.w / self.s / 1.15))


@dataclass(frozen=True, slots=True)
class Fade:
    """A gradient from `top` to `bottom`: places (share of the way) and the colours there."""

    stops: tuple[tuple[float, Colour], ...]
    top: float
    bottom: float

    def draw(self, canvas: skia.Canvas, area: skia.Rect) -> None:
        """Draw it over an area as plain strips, five times as fast as Skia's own gradient."""
        left, right, reach = area.left(), area.right(), self.bottom - self.top
        paint = skia.Paint()
        edge = min(area.top(), self.top)
        for (p0, c0), (p1, c1) in itertools.pairwise(self.stops):
            if p1 - p0 < 1e-6:
                continue
            # No more strips than there are different colours, or rows.
            steps = max(abs(a - b) for a, b in zip(c0, c1, strict=True))
            count = max(1, min(math.ceil(steps), math.ceil((p1 - p0) * reach)))
            for k in range(count):
                r, g, b = mix(c0, c1, (k + 0.5) / count)
                paint.setColor(skia.Color(int(r), int(g), int(b)))
                below = self.top + reach * (p0 + (p1 - p0) * (k + 1) / count)
                canvas.drawRect(skia.Rect.MakeLTRB(left, edge, right, below), paint)
                edge = below
        if edge < area.bottom():
            r, g, b = self.stops[-1][1]
            paint.setColor(skia.Color(int(r), int(g), int(b)))
            canvas.drawRect(skia.Rect.MakeLTRB(left, edge, right, area.bottom()), paint)


class Brush:
    """A canvas on which every colour passes through the time and the style of one scene."""

    def __init__(self, canvas: skia.Canvas, scene: Scene, frame: Frame) -> None:
        self.canvas = canvas
        self.scene = scene
        self.frame = frame
        self.jitter = scene.backdrop
        self.weather = WEATHERS[scene.time]
        self.anime = anime(scene)
        warm = 0.045 * scene.backdrop.warmth
        self.warm: Colour = (1 + warm, 1 + 0.2 * warm, 1 - warm)
        self.snowy = scene.time == "snow"
        self.stroke_ink = _ink(self.anime, frame.s) if self.anime > 0 else None

    def raw(self, rgb: Colour) -> Colour:
        """A colour of the sky itself: only the hue of the light and the style change it."""
        return pastel(times(rgb, self.warm), self.anime)

    def land(self, rgb: Colour, far: float = 0.0, snow: float = 0.0) -> Colour:
        """A colour of the land: seen from `far` (0..1), and covered by `snow` when it snows."""
        if snow and self.snowy:
            # Snow far away is bluer, so that one white hill stands out before another.
            rgb = mix(rgb, mix((252, 253, 255), (170, 194, 224), min(1.0, 1.6 * far)), snow)
        lit = mix(times(rgb, self.weather.land.tint), *self.weather.land.haze)
        return self.raw(mix(lit, self.weather.sky[2], far))

    def water(self, rgb: Colour, far: float = 0.0, snow: float = 0.0) -> Colour:
        """A colour of open water: as land, but purple at sunset, when it mirrors the sky."""
        if self.scene.time == "night":
            # Darker than land, so that a blue boat stands out from it.
            rgb = mix(rgb, (0, 0, 0), 0.32)
        if self.scene.time != "sunset":
            return self.land(rgb, far, snow)
        r, g, b = rgb
        purple = (0.9 * r + 84, 0.5 * g + 10, 0.7 * b + 14)
        return self.raw(mix(purple, self.weather.sky[2], far))

    def paint(self, rgb: Colour, alpha: float = 1.0) -> skia.Paint:
        """A plain paint of a finished colour."""
        r, g, b = rgb
        return skia.Paint(
            AntiAlias=True, Color=skia.Color(int(r), int(g), int(b), int(255 * alpha))
        )

    def fade(self, colours: Sequence[Colour], top: float, bottom: float) -> Fade:
        """A gradient downwards; the style "anime" hardens it into flat bands."""
        last = len(colours) - 1
        # A flat band reaches to the middle between its colour and the next.
        half = 0.49 / last * min(1.0, self.anime)
        stops = []
        for k, colour in enumerate(colours):
            stops.append((k / last - half, colour))
            stops.append((k / last + half, colour))
        return Fade(tuple(stops), top, bottom)

    def fill(self, path: skia.Path, rgb: Colour | Fade | skia.Paint, edge: bool = True) -> None:
        """Fill a path, and ink its edge if the style asks for it."""
        if isinstance(rgb, Fade):
            self.canvas.save()
            self.canvas.clipPath(path, doAntiAlias=True)
            rgb.draw(self.canvas, path.getBounds())
            self.canvas.restore()
        elif isinstance(rgb, skia.Paint):
            self.canvas.drawPath(path, rgb)
        else:
            self.canvas.drawPath(path, self.paint(rgb))
        if edge and self.stroke_ink is not None:
            self.canvas.drawPath(path, self.stroke_ink)

    def stroke(self, path: skia.Path, rgb: Colour, width: float, edge: bool = True) -> None:
        """Draw a round thick line, inked on both sides if the style asks for it."""
        paint = self.paint(rgb)
        paint.setStyle(skia.Paint.kStroke_Style)
        paint.setStrokeCap(skia.Paint.kRound_Cap)
        paint.setStrokeJoin(skia.Paint.kRound_Join)
        if edge and self.stroke_ink is not None:
            ink = skia.Paint(self.stroke_ink)
            ink.setStrokeWidth(width + 2 * self.stroke_ink.getStrokeWidth())
            self.canvas.drawPath(path, ink)
        paint.setStrokeWidth(width)
        self.canvas.drawPath(path, paint)


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


def _union(*paths: skia.Path) -> skia.Path:
    whole = paths[0]
    for path in paths[1:]:
        whole = skia.Op(whole, path, skia.PathOp.kUnion_PathOp)
    return whole


def _cloud() -> skia.Path:
    # Three heaps on a flat foot, 1 wide, the foot at y = 0.
    return _union(
        skia.Path.RRect(skia.RRect.MakeRectXY(skia.Rect.MakeLTRB(-0.5, -0.18, 0.5, 0), 0.09, 0.09)),
        skia.Path.Circle(-0.2, -0.16, 0.15),
        skia.Path.Circle(0.05, -0.24, 0.21),
        skia.Path.Circle(0.27, -0.14, 0.13),
    )


def _crescent() -> skia.Path:
    return skia.Op(
        skia.Path.Circle(0, 0, 1),
        skia.Path.Circle(0.48, -0.16, 0.82),
        skia.PathOp.kDifference_PathOp,
    )


def _petal() -> skia.Path:
    path = skia.Path()
    path.moveTo(0, 0.5)
    path.cubicTo(-0.55, 0.1, -0.35, -0.5, -0.1, -0.5)
    path.lineTo(0, -0.36)
    path.lineTo(0.1, -0.5)
    path.cubicTo(0.35, -0.5, 0.55, 0.1, 0, 0.5)
    path.close()
    return path


def _blossom() -> skia.Path:
    petals = []
    for k in range(5):
        turn = math.radians(72 * k - 90)
        petals.append(skia.Path.Circle(0.5 * math.cos(turn), 0.5 * math.sin(turn), 0.42))
    return _union(*petals)


def _star() -> skia.Path:
    points = []
    for k in range(8):
        reach = 1.0 if k % 2 == 0 else 0.36
        turn = math.radians(45 * k)
        points.append((reach * math.sin(turn), reach * math.cos(turn)))
    return polygon(points)


CLOUD = _cloud()
CRESCENT = _crescent()
PETAL = _petal()
BLOSSOM = _blossom()
STAR = _star()
BOLT = polygon(
    [(0.12, 0), (-0.2, 0.5), (0.0, 0.5), (-0.16, 1.0), (0.3, 0.36), (0.08, 0.36), (0.34, 0)]
)

# Two layouts of stars: share of a tile's width, share of the height down to the horizon, size.
STARS = (
    (0.06, 0.52, 1.0),
    (0.17, 0.14, 1.4),
    (0.3, 0.36, 0.9),
    (0.42, 0.1, 1.0),
    (0.55, 0.5, 1.3),
    (0.66, 0.22, 1.0),
    (0.79, 0.56, 0.9),
    (0.88, 0.12, 1.4),
    (0.96, 0.38, 1.0),
)


def draw_sky(brush: Brush, frame: Frame) -> None:
    """The sky of the scene's time, from the top of the frame to its lower edge."""
    colours = [brush.raw(c) for c in brush.weather.sky]
    area = skia.Rect.MakeWH(frame.w, frame.h)
    brush.fade(colours, 0, max(frame.horizon, 1.0)).draw(brush.canvas, area)
    _SKIES[brush.scene.time](brush, frame)


def _clouds(
    brush: Brush,
    frame: Frame,
    spots: Sequence[tuple[float, float, float]],
    colour: Colour,
    shade: Colour | None = None,
    clear: tuple[float, float] | None = None,
) -> None:
    """Clouds at (share of a tile, share of the height to the horizon, width in shorter sides).

    None is drawn over the point `clear`, where the sun is.
    """
    tile = frame.w / frame.tiles
    for k in range(frame.tiles):
        for x, y, size in spots:
            cx = (k + x + 0.03 * brush.jitter.slide) * tile
            if clear is not None and (
                abs(cx - clear[0]) < 0.24 * frame.s
                and abs(y * frame.horizon - 0.1 * frame.s - clear[1]) < 0.2 * frame.s
            ):
                continue
            cloud = placed(CLOUD, cx, y * frame.horizon, size * frame.s)
            if shade is not None:
                under = placed(CLOUD, cx, (y + 0.03) * frame.horizon, size * frame.s)
                brush.fill(under, brush.raw(shade), edge=False)
            brush.fill(cloud, brush.raw(colour))


def _day(brush: Brush, frame: Frame) -> None:
    x = across(brush.scene) * frame.w
    y, r = 0.29 * frame.horizon, 0.085 * frame.s
    brush.canvas.drawCircle(x, y, 1.5 * r, brush.paint(brush.raw((255, 244, 180)), 0.45))
    brush.fill(skia.Path.Circle(x, y, r), brush.raw((255, 214, 64)))
    spots = (
        ((0.55, 0.38, 0.3), (0.86, 0.62, 0.22)),
        ((0.16, 0.42, 0.28), (0.86, 0.5, 0.28)),
        ((0.14, 0.62, 0.22), (0.46, 0.38, 0.3)),
    )
    _clouds(brush, frame, spots[brush.jitter.sky], (255, 255, 255), (224, 238, 250), (x, y))


def _sunset(brush: Brush, frame: Frame) -> None:
    x = across(brush.scene) * frame.w
    r = 0.15 * frame.s
    y = max(1.3 * r, frame.horizon - 0.2 * frame.s)
    brush.canvas.drawCircle(x, y, 1.4 * r, brush.paint(brush.raw((255, 226, 130)), 0.4))
    brush.fill(skia.Path.Circle(x, y, r), brush.raw((255, 238, 150)))
    spots = (
        ((0.6, 0.3, 0.34), (0.88, 0.5, 0.24)),
        ((0.14, 0.34, 0.3), (0.84, 0.28, 0.32)),
        ((0.14, 0.5, 0.24), (0.4, 0.3, 0.34)),
    )
    _clouds(brush, frame, spots[brush.jitter.sky], (250, 160, 160), clear=(x, y))


def _night(brush: Brush, frame: Frame) -> None:
    tile = frame.w / frame.tiles
    x = across(brush.scene) * frame.w
    y, r = 0.31 * frame.horizon, 0.095 * frame.s
    stars = skia.Path()
    for k in range(frame.tiles):
        for sx, sy, size in STARS:
            if brush.jitter.sky == 1:
                sx = 1.0 - sx
            px, py = (k + sx) * tile, sy * frame.horizon
            if math.hypot(px - x, py - y) > 2.0 * r:
                stars.addPath(placed(STAR, px, py, 0.017 * size * frame.s))
    brush.fill(stars, brush.raw((255, 248, 214)), edge=False)
    brush.canvas.drawCircle(x, y, 1.6 * r, brush.paint(brush.raw((130, 150, 220)), 0.25))
    brush.fill(placed(CRESCENT, x, y, r), brush.raw((255, 240, 170)))


def _storm(brush: Brush, frame: Frame) -> None:
    x = across(brush.scene) * frame.w
    # A ceiling of heavy clouds, two rows of heaps hanging from the top edge.
    for row, colour in ((0.30, (86, 92, 108)), (0.17, (60, 64, 80))):
        step = 0.24 * frame.s
        count = max(3, round(frame.w / step))
        step = frame.w / count
        shift = (0.0 if row > 0.2 else 0.5) + 0.2 * brush.jitter.slide + 0.3 * brush.jitter.sky
        ceiling = skia.Path()
        y = row * frame.horizon
        ceiling.moveTo(-step, -frame.h)
        ceiling.lineTo((shift - 2) * step, y)
        for k in range(-2, count + 2):
            x0 = (k + shift) * step
            drop = (0.085 if k % 2 else 0.055) * frame.s
            ceiling.cubicTo(x0, y + drop, x0 + step, y + drop, x0 + step, y)
        ceiling.lineTo(frame.w + step, -frame.h)
        ceiling.close()
        brush.fill(ceiling, brush.raw(colour))
    top = 0.13 * frame.horizon
    reach = min(0.64 * frame.horizon, 0.3 * frame.s + 0.12 * frame.h)
    bolt = placed(BOLT, x - 0.04 * frame.s, top, reach)
    brush.stroke(bolt, brush.raw((176, 172, 150)), 0.035 * frame.s, edge=False)
    brush.fill(bolt, brush.raw((255, 240, 120)))


def _fog(brush: Brush, frame: Frame) -> None:
    _wisps(brush, frame, (0.34,), 0.95)


def _wisps(
    brush: Brush, frame: Frame, rows: Sequence[float], alpha: float, edge: bool = False
) -> None:
    """Flat banks of fog, at shares of the height down to the horizon."""
    colour = brush.raw((244, 247, 247))
    tile = frame.w / frame.tiles
    for k, row in enumerate(rows):
        side = 1 if (k + brush.jitter.sky) % 2 else -1
        shift = (0.0 if edge else 0.5) + (0.06 if edge else 0.18) * side
        for n in range(-1, frame.tiles + 2):
            bank = skia.Path()
            y = row * frame.horizon
            middle = (n + shift + 0.05 * brush.jitter.slide) * tile
            for step, (far, half) in enumerate(((0.05, 0.19), (-0.04, 0.3), (0.07, 0.17))):
                x = middle + side * far * tile
                top = y + (step - 1.5) * 0.05 * frame.s
                rect = skia.Rect.MakeLTRB(
                    x - half * tile, top, x + half * tile, top + 0.054 * frame.s
                )
                bar = skia.Path.RRect(skia.RRect.MakeRectXY(rect, 0.027 * frame.s, 0.027 * frame.s))
                bank = skia.Op(bank, bar, skia.PathOp.kUnion_PathOp)
            brush.fill(bank, brush.paint(colour, alpha), edge=False)


def _rain(brush: Brush, frame: Frame) -> None:
    spots = (
        ((0.28, 0.42, 0.44), (0.76, 0.34, 0.38)),
        ((0.5, 0.4, 0.5), (0.98, 0.34, 0.3)),
        ((0.22, 0.34, 0.38), (0.7, 0.42, 0.44)),
    )
    _clouds(brush, frame, spots[brush.jitter.sky], (214, 222, 232), (150, 164, 184))


def _snow(brush: Brush, frame: Frame) -> None:
    spots = (((0.26, 0.4, 0.34),), ((0.5, 0.36, 0.36),), ((0.76, 0.4, 0.34),))
    _clouds(brush, frame, spots[brush.jitter.sky], (238, 244, 250), (196, 212, 230))


def _blossoms(brush: Brush, frame: Frame) -> None:
    spots = (((0.24, 0.6, 0.24),), ((0.42, 0.56, 0.26),), ((0.76, 0.6, 0.24),))
    _clouds(brush, frame, spots[brush.jitter.sky], (255, 250, 250))


_SKIES = {
    "day": _day,
    "sunset": _sunset,
    "night": _night,
    "storm": _storm,
    "fog": _fog,
    "rain": _rain,
    "snow": _snow,
    "blossoms": _blossoms,
}


def draw_branch(brush: Brush, frame: Frame, unit: float) -> None:
    """A cherry branch in flower, reaching in from an upper corner; nothing at other times."""
    if brush.scene.time != "blossoms":
        return
    canvas = brush.canvas
    canvas.save()
    if brush.jitter.sky != 2:
        # The branch comes from the right, away from the cloud; unit paths come from the left.
        canvas.translate(frame.w, 0)
        canvas.scale(-1, 1)
    top = 0.02 * unit * brush.jitter.slide
    wood = brush.raw((122, 74, 66))
    branch = skia.Path()
    branch.moveTo(-0.03 * unit, top + 0.06 * unit)
    branch.quadTo(0.16 * unit, top + 0.06 * unit, 0.43 * unit, top + 0.17 * unit)
    twig = skia.Path()
    twig.moveTo(0.16 * unit, top + 0.075 * unit)
    twig.quadTo(0.2 * unit, top + 0.16 * unit, 0.21 * unit, top + 0.24 * unit)
    brush.stroke(twig, wood, 0.016 * unit)
    brush.stroke(branch, wood, 0.026 * unit)
    flowers = (
        (0.04, 0.09, 0.055),
        (0.13, 0.035, 0.05),
        (0.15, 0.13, 0.05),
        (0.215, 0.23, 0.055),
        (0.24, 0.075, 0.058),
        (0.33, 0.15, 0.052),
        (0.43, 0.17, 0.058),
    )
    whole, hearts = skia.Path(), skia.Path()
    for k, (x, y, r) in enumerate(flowers):
        whole.addPath(placed(BLOSSOM, x * unit, top + y * unit, r * unit, 24.0 * k))
        hearts.addCircle(x * unit, top + y * unit, 0.3 * r * unit)
    brush.fill(whole, brush.raw((246, 128, 170)))
    brush.fill(hearts, brush.raw((255, 226, 140)), edge=False)
    canvas.restore()


def draw_veil(brush: Brush, frame: Frame) -> None:
    """The fog over the land, behind the objects; nothing at other times."""
    if brush.scene.time == "fog":
        row = 1.0 + 0.16 * (frame.h - frame.horizon) / frame.horizon
        _wisps(brush, frame, (row,), 0.55)


# Patterns of what falls, one tile of one shorter side: share across, share down.
_FLAKES = (
    (0.08, 0.1, 1.0), (0.3, 0.2, 0.7), (0.55, 0.08, 0.9), (0.8, 0.22, 1.1),
    (0.18, 0.4, 0.8), (0.44, 0.36, 1.1), (0.68, 0.46, 0.7), (0.93, 0.44, 0.9),
    (0.06, 0.66, 1.0), (0.34, 0.62, 0.8), (0.58, 0.7, 1.0), (0.84, 0.68, 0.8),
    (0.2, 0.88, 0.9), (0.46, 0.92, 0.8), (0.72, 0.9, 1.1), (0.96, 0.92, 0.7),
)  # fmt: skip
_PETALS = (
    (0.1, 0.3, 20.0), (0.36, 0.16, -50.0), (0.62, 0.34, 75.0), (0.9, 0.46, -20.0),
    (0.2, 0.58, 110.0), (0.5, 0.62, -35.0), (0.78, 0.7, 40.0), (0.08, 0.84, -70.0),
    (0.36, 0.9, 15.0), (0.64, 0.94, 60.0), (0.93, 0.93, -100.0), (0.84, 0.14, 30.0),
)  # fmt: skip


def draw_fall(brush: Brush, frame: Frame) -> None:
    """What falls or lies before the objects: rain, flakes, petals, fog."""
    time = brush.scene.time
    if time == "fog":
        # Its middle is at the edge of the picture: it crosses the feet of what stands aside.
        _wisps(brush, frame, ((frame.ground + 0.02 * frame.s) / frame.horizon,), 0.62, edge=True)
    elif time == "rain":
        _streaks(brush, frame)
    elif time == "snow":
        _flakes(brush, frame)
    elif time == "blossoms":
        _petals(brush, frame)


def _tiles(frame: Frame) -> list[tuple[float, float]]:
    across, down = math.ceil(frame.w / frame.s - 0.01), math.ceil(frame.h / frame.s - 0.01)
    return [(i * frame.s, j * frame.s) for j in range(down) for i in range(across)]


def _streaks(brush: Brush, frame: Frame) -> None:
    s = frame.s
    points = []
    turn = 0.05 * brush.jitter.fall
    for x, y in _tiles(frame):
        for row in range(4):
            for column in range(4):
                px = x + (0.14 + 0.25 * column + (0.125 if row % 2 else 0.0) - turn) * s
                py = y + (0.04 + 0.25 * row + turn + 0.06 * (column % 2)) * s
                points.append(skia.Point(px, py))
                points.append(skia.Point(px - 0.05 * s, py + 0.14 * s))
    paint = brush.paint(brush.raw((226, 238, 252)), 0.75)
    paint.setStrokeWidth(0.017 * s)
    paint.setStrokeCap(skia.Paint.kRound_Cap)
    brush.canvas.drawPoints(skia.Canvas.PointMode.kLines_PointMode, points, paint)


def _flakes(brush: Brush, frame: Frame) -> None:
    s = frame.s
    path = skia.Path()
    for x, y in _tiles(frame):
        for fx, fy, size in _FLAKES:
            if brush.jitter.fall:
                fx = 1.0 - fx
            path.addCircle(x + fx * s, y + fy * s, 0.022 * size * s)
    brush.fill(path, brush.paint((255, 255, 255), 0.95), edge=False)


def _petals(brush: Brush, frame: Frame) -> None:
    s = frame.s
    path = skia.Path()
    for x, y in _tiles(frame):
        for fx, fy, turn in _PETALS:
            if brush.jitter.fall:
                fx, turn = 1.0 - fx, -turn
            path.addPath(placed(PETAL, x + fx * s, y + fy * s, 0.055 * s, turn))
    brush.fill(path, brush.raw((246, 132, 172)))
