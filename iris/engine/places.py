"""Room that is kept for those who were turned away, until they come back as they were told to."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

_EARLY_S = 1.0  # a client's clock, and how times are rounded
_GRACE_S = 5.0  # after which nobody is expected any more
_ALIKE = 2.0  # times as long: what is longer comes later anyway
_WEIGHT = 0.1  # of whether the last one came back


@dataclass(frozen=True, slots=True)
class Place:
    """Room for one picture."""

    likeness: Hashable  # whoever comes with the same is who was turned away
    from_s: float  # on the engine's clock
    own_s: float  # of work


class Places:
    """What was promised to whom, and which share of them comes back."""

    def __init__(self) -> None:
        self._places: list[Place] = []
        self._share = 1.0  # that came back, of late

    def keep(self, likeness: Hashable, from_s: float, own_s: float) -> None:
        self._places.append(Place(likeness, from_s, own_s))

    def take(self, likeness: Hashable, now_s: float) -> Place | None:
        """The place of who comes now, if one is kept from about now on."""
        for past in [place for place in self._places if place.from_s + _GRACE_S < now_s]:
            self._end(past, came=0.0)
        own = (p for p in self._places if p.likeness == likeness and p.from_s - _EARLY_S <= now_s)
        place = min(own, key=lambda place: place.from_s, default=None)
        if place is not None:
            self._end(place, came=1.0)
        return place

    def _end(self, place: Place, came: float) -> None:
        self._places.remove(place)
        self._share += _WEIGHT * (came - self._share)

    def expected_s(self, own_s: float, until_s: float) -> float:
        """Work that is expected by then and is not much longer than a picture of `own_s`."""
        return self._share * sum(
            place.own_s
            for place in self._places
            if place.own_s <= _ALIKE * own_s and place.from_s <= until_s
        )
