"""What lies beyond the sizes that a model was trained on is painted within them, and scaled."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from iris.engine.calibration import measure
from iris.engine.canvas import Canvas, Sides, resized
from iris.engine.denoiser import Denoiser, to_pixels
from iris.engine.ticket import work_of
from iris.jobs import Pixels
from tests.engine.conftest import a_conditioner, a_gradient, a_job, stepped

SIDES = Sides(shorter_px=96, longer_most_px=128)
COMPOSITION_SIDES = Sides(shorter_px=80, longer_most_px=128)
REFERENCE_SIDES = Sides(shorter_px=64, longer_most_px=128)
pixels = st.integers(1, 960)


@given(width=pixels, height=pixels)
def test_without_sides_a_picture_is_painted_as_it_is(width, height):
    canvas = Canvas.of(width, height, 64, None)
    assert (canvas.width_px, canvas.height_px) == (width, height)
    assert 0 <= canvas.grid.columns * 64 - width < 64
    assert 0 <= canvas.grid.rows * 64 - height < 64


@given(
    width=pixels,
    height=pixels,
    sides=st.builds(lambda sides: Sides(*sorted(sides)), st.tuples(*[st.integers(16, 1200)] * 2)),
)
def test_a_canvas_keeps_to_the_sides_and_to_the_aspect(width, height, sides):
    canvas = Canvas.of(width, height, 16, sides)
    shorter, longer = sorted((canvas.width_px, canvas.height_px))
    assert shorter == sides.shorter_px or longer == sides.longer_most_px
    assert shorter <= sides.shorter_px
    assert longer <= sides.longer_most_px
    scale = max(canvas.width_px, canvas.height_px) / max(width, height)
    assert canvas.width_px == pytest.approx(max(1, scale * width), abs=1)
    assert canvas.height_px == pytest.approx(max(1, scale * height), abs=1)


@given(width=pixels, height=pixels, times=st.integers(1, 5))
def test_pictures_of_one_aspect_have_one_canvas(width, height, times):
    """So an edit lies on the grid that its source was painted on."""
    once = Canvas.of(width, height, 64, Sides(768, 960))
    assert Canvas.of(times * width, times * height, 64, Sides(768, 960)) == once


def test_sides_that_do_not_rise_are_refused():
    with pytest.raises(ValueError, match="must hold"):
        Sides(768, 512)
    with pytest.raises(ValueError, match="must hold"):
        Sides(0, 512)


def test_what_has_the_size_is_not_touched():
    image = torch.rand(1, 3, 5, 7)
    assert resized(image, 7, 5) is image
    flat = torch.full((1, 3, 40, 30), 0.25)
    assert torch.allclose(resized(flat, 64, 48), torch.full((1, 3, 48, 64), 0.25))


@pytest.fixture(scope="module")
def narrow(load):
    """A model that paints at 96 by at most 128 pixels, and reads what it looks at smaller."""
    components, styles = load("fine")
    sides = {"composition_sides": COMPOSITION_SIDES, "reference_sides": REFERENCE_SIDES}
    return replace(components, sides=SIDES, **sides), styles


@pytest.mark.parametrize(
    ("asked", "painted"),
    [((32, 32), (96, 96)), ((192, 192), (96, 96)), ((16, 64), (32, 128)), ((96, 112), (96, 112))],
)
def test_a_picture_is_that_of_the_painted_size_scaled(asked, painted, narrow):
    denoiser = Denoiser(*narrow)
    jobs = [a_job(width_px=w, height_px=h) for w, h in (asked, painted)]
    small, large = stepped(narrow, denoiser, jobs)
    assert torch.equal(small.latents, large.latents)
    picture, whole = denoiser.decode(small), denoiser.decode(large)
    assert picture.shape == (3, asked[1], asked[0])
    # the one is cut to 0..1 before it is scaled, the other after
    assert (picture - resized(whole[None], *asked)[0]).abs().mean() < 0.01


def test_an_image_is_read_as_its_picture_is_painted_or_smaller_where_it_is_only_looked_at(narrow):
    """A flat one is the same whatever its size was."""
    denoiser = Denoiser(*narrow)
    images = [Pixels(w, h, bytes([200, 40, 90]) * w * h) for w, h in ((96, 64), (48, 32), (24, 16))]
    rows = stepped(narrow, denoiser, [a_job(images=(image,)) for image in images])
    assert [row.usage.input_image_tokens for row in rows] == [6 * 4] * 3
    for row in rows[1:]:
        assert torch.allclose(row.latents, rows[0].latents, atol=1e-4)
    for image in images:
        size = {"width_px": image.width_px, "height_px": image.height_px}
        [row] = stepped(narrow, denoiser, [a_job(images=(image,), strength=0.5, **size)])
        assert row.usage.input_image_tokens == row.usage.output_image_tokens == 8 * 6


def test_an_edit_within_a_mask_keeps_the_pixels_outside(narrow):
    source = a_gradient(48, 32)
    mask = np.zeros((32, 48), np.uint8)
    mask[:, :20] = 255
    job = a_job(
        width_px=48, height_px=32, images=(source,), strength=0.8, mask=mask.tobytes(), seed=4
    )
    denoiser = Denoiser(*narrow)
    [row] = stepped(narrow, denoiser, [job])
    made = np.frombuffer(to_pixels(denoiser.decode(row)).rgb, np.uint8).reshape(32, 48, 3)
    before = np.frombuffer(source.rgb, np.uint8).reshape(32, 48, 3)
    assert (made[:, 20:] == before[:, 20:]).all()
    assert (made[:, :20] != before[:, :20]).any()


def test_work_is_counted_as_it_is_painted(narrow):
    def counted(strength, width, height):
        source = a_gradient(width, height)
        job = a_job(width_px=width, height_px=height, images=(source,), strength=strength)
        return work_of(job, "t", narrow[0], 0.0)

    for strength, painted, read in ((0.5, 96, 96), (None, 80, 64)):
        for work in (counted(strength, 32, 32), counted(strength, 128, 128)):
            assert work.tokens == narrow[0].text_tokens + (painted // 16) ** 2 + (read // 16) ** 2
            assert work.pixels == painted**2
            assert work.image_pixels == read**2


class Points:
    def calibrate(self, points):
        self.units = [units for units, _ in points]


def test_a_model_of_one_scale_is_measured_by_pictures_that_differ(narrow):
    """A line goes through two of them."""
    cost = SimpleNamespace(encode=Points(), step=Points(), decode=Points())
    denoiser = Denoiser(*narrow)
    measure(cost, a_conditioner(narrow[0], denoiser), denoiser)
    for line in (cost.encode, cost.step, cost.decode):
        small, large = line.units
        assert small < large
