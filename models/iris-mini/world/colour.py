"""Colours as three numbers, 0..255, and what can be done to them."""

from __future__ import annotations

Colour = tuple[float, float, float]

WHITE: Colour = (255, 255, 255)


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
