"""Pictures of the world as the model makes them: at its own scale, then at some size."""

from __future__ import annotations

import numpy as np
from PIL import Image as Pillow

from evaluation.measures import Image
from iris.engine.canvas import Canvas
from training.grids import SIDES, TOKEN
from world.render import render
from world.spec import Scene


def view(scene: Scene, width: int, height: int) -> Image:
    """The scene at this size, as a perfect model would have painted it."""
    canvas = Canvas.of(width, height, TOKEN, SIDES)
    return scaled(render(scene, canvas.width_px, canvas.height_px), (width, height))


def scaled(picture: Image, size: tuple[int, int]) -> Image:
    """As the service brings a source to the size of its edit."""
    if picture.shape[1::-1] == size:
        return picture
    resized: Image = np.asarray(Pillow.fromarray(picture).resize(size, Pillow.Resampling.LANCZOS))
    return resized
