"""Time of day and weather: the colours they give to sky, land and objects."""

from __future__ import annotations

from dataclasses import dataclass

from world import anime
from world.colour import WHITE, Colour, mix, times
from world.spec import Scene


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
        return anime.pastel(mix(times(rgb, self.tint), *self.haze), self.anime)


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
        Light((0.80, 0.83, 0.94), (WHITE, 0.0)),
    ),
    "storm": Weather(
        ((50, 54, 68), (78, 84, 100), (118, 124, 138)),
        Light((0.56, 0.60, 0.66), ((88, 94, 108), 0.22)),
        Light((0.90, 0.92, 0.96), (WHITE, 0.0)),
    ),
    "fog": Weather(
        ((220, 225, 228), (230, 233, 234), (236, 238, 238)),
        Light((0.95, 0.97, 1.0), ((222, 227, 229), 0.58)),
        Light((1.0, 1.0, 1.0), ((222, 227, 229), 0.1)),
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


def light(scene: Scene) -> Light:
    """The light in which the objects of a scene stand."""
    base = WEATHERS[scene.time].things
    warm = 0.08 * scene.backdrop.warmth
    tint = (base.tint[0] * (1 + warm), base.tint[1], base.tint[2] * (1 - warm))
    return Light(tint, base.haze, anime.amount_of(scene))
