"""What bench/mix.py asks for: unlike pictures, none of them twice."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from server import a_photo

STYLES = ("none", "dark", "anime")
COLOURS = ["red", "orange", "yellow", "green", "blue", "white", "black", "purple"]
THINGS = ["house", "car", "boat", "tree", "cat", "balloon", "cup", "bird"]
PLACES = (
    "on the beach",
    "in the city",
    "in the mountains",
    "in the desert",
    "in the forest",
    "on the sea",
    "in a studio",
    "di pantai",
)
TIMES = ("at sunset", "at night", "in the rain", "on a sunny day", "in the snow", "siang hari")


@dataclass(frozen=True)
class Request:
    kind: str
    route: str
    body: dict[str, Any]


class Requests:
    """Draws requests; what was drawn never comes again."""

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(seed)  # noqa: S311
        words = list(itertools.product(COLOURS, THINGS, PLACES, TIMES))
        self._rng.shuffle(words)
        self._prompts = (f"a {colour} {' '.join(others)}" for colour, *others in words)
        self._photos = self._all_photos()

    def draw(self, count: int, styles: Sequence[str] = STYLES) -> list[Request]:
        return [self._one(styles) for _ in range(count)]

    def _one(self, styles: Sequence[str]) -> Request:
        rng = self._rng
        kind = rng.choices(("preview", "final", "edit"), (0.6, 0.2, 0.2))[0]
        side = {"preview": (512, 640, 768), "final": (768, 960), "edit": (512, 704)}[kind]
        width = rng.choice(side)
        body: dict[str, Any] = {
            "model": "epithre-iris",
            "prompt": next(self._prompts),
            "size": f"{width}x{width}",
            "num_steps": rng.randint(20, 30) if kind == "final" else 4,
            "seed": rng.randrange(2**32),
            "lora": rng.choice(styles),
            "lora_strength": 0.8,
        }
        if kind == "edit":
            body["images"] = list(itertools.islice(self._photos, rng.randint(1, 3)))
        return Request(kind, "edits" if kind == "edit" else "generations", body)

    def _all_photos(self) -> Iterator[str]:
        for wider in itertools.count():
            for number in range(256):
                yield a_photo(512 + 2 * wider, 512, number)
