"""The land of each scene."""

from __future__ import annotations

from world.lands import (
    bamboo,
    beach,
    city,
    desert,
    forest,
    hills,
    mountains,
    ricefield,
    sea,
    studio,
)

LANDS = {
    "beach": beach.draw,
    "sea": sea.draw,
    "hills": hills.draw,
    "forest": forest.draw,
    "bamboo": bamboo.draw,
    "desert": desert.draw,
    "city": city.draw,
    "mountains": mountains.draw,
    "ricefield": ricefield.draw,
    "studio": studio.draw,
}
