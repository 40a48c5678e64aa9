from dataclasses import replace

import pytest

from iris.engine.canvas import Sides
from iris.engine.ticket import work_of
from iris.jobs import without_pixels
from tests.engine.conftest import a_gradient, a_job


@pytest.mark.parametrize("mask", [None, bytes(64 * 96)])
@pytest.mark.parametrize("strength", [None, 0.5, 0.0])
def test_a_job_without_its_pixels_is_as_much_work(fine, mask, strength):
    """Also where a model reads what it edits at another size than what it only looks at."""
    sides = {"sides": Sides(128, 512), "composition_sides": Sides(64, 512)}
    model = replace(fine[0], **sides, reference_sides=Sides(32, 512))
    images = (a_gradient(64, 96),) if strength is not None else (a_gradient(64, 96),) * 2
    job = a_job(height_px=96, images=images, strength=strength, mask=mask)
    small = without_pixels(job)
    assert work_of(small, "t", model, 0.0) == work_of(job, "t", model, 0.0)
    assert all(not image.rgb for image in small.images)
    assert not small.mask
