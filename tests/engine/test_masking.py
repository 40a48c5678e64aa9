"""Outside a mask the source comes back to the byte; inside, the picture is made."""

import numpy as np
import pytest
import torch

from iris.engine.canvas import Canvas
from iris.engine.denoiser import Denoiser, to_pixels
from iris.engine.latents import Grid
from iris.engine.masking import tokens_inside
from tests.engine.conftest import a_gradient, a_job, stepped


def made(model, *jobs):
    """The pictures as arrays, made side by side."""
    denoiser = Denoiser(*model)
    return [array(to_pixels(denoiser.decode(row))) for row in stepped(model, denoiser, jobs)]


def array(pixels):
    return np.frombuffer(pixels.rgb, np.uint8).reshape(pixels.height_px, pixels.width_px, 3)


def a_masked_job(width=96, height=80, **changes):
    mask = np.zeros((height, width), np.uint8)
    mask[20:60, 30:70] = 255
    fields = {
        "width_px": width,
        "height_px": height,
        "images": (a_gradient(width, height),),
        "strength": 1.0,
        "mask": mask.tobytes(),
    }
    return a_job(**fields | changes), mask > 127


@pytest.mark.parametrize("model", ["fine", "coarse"])
@pytest.mark.parametrize("strength", [0.3, 1.0, None])
def test_outside_the_mask_the_source_comes_back_unchanged(model, strength, request):
    job, inside = a_masked_job(strength=strength)
    (picture,) = made(request.getfixturevalue(model), job)
    source = array(job.images[0])
    assert (picture[~inside] == source[~inside]).all()
    assert (picture[inside] != source[inside]).any()


def test_a_mask_over_everything_is_no_mask(fine):
    job, _ = a_masked_job(mask=b"\xff" * 96 * 80)
    free, _ = a_masked_job(mask=None)
    masked, unmasked = made(fine, job)[0], made(fine, free)[0]
    assert (masked == unmasked).all()


def test_a_masked_picture_does_not_depend_on_its_neighbours(fine):
    job, _ = a_masked_job()
    (alone,) = made(fine, job)
    together = made(fine, a_job(seed=5), job, a_job(lora="dark", guidance_scale=2.0))[1]
    assert (alone == together).all()


def test_what_is_made_inside_knows_the_source_around_it(fine):
    """The same seed and prompt inside, another source outside."""
    job, inside = a_masked_job()
    other, _ = a_masked_job(images=(a_gradient(96, 80, 2),))
    assert (made(fine, job)[0][inside] != made(fine, other)[0][inside]).any()


def test_a_token_is_as_far_inside_as_the_middle_of_its_square():
    mask = np.zeros((32, 48), np.uint8)
    mask[:, :24] = 255
    inside = tokens_inside(mask.tobytes(), 48, 32, Canvas(48, 32, Grid(2, 3)), 16)
    assert torch.equal(inside.view(2, 3), torch.tensor([[1.0, 0.5, 0.0]] * 2))


def test_beyond_the_picture_its_edge_goes_on():
    mask = np.zeros((20, 20), np.uint8)
    mask[:, 16:] = 255
    inside = tokens_inside(mask.tobytes(), 20, 20, Canvas(20, 20, Grid(2, 2)), 16)
    assert torch.equal(inside.view(2, 2), torch.tensor([[0.0, 1.0]] * 2))
