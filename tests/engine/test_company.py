"""A picture is the same to the byte whoever shares its steps."""

from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from iris.engine.denoiser import Denoiser, to_pixels
from tests.engine.conftest import a_conditioner, a_gradient, a_job

SIDES = (16, 48, 64, 96, 160, 256)


@st.composite
def jobs(draw):
    changes = {
        "width_px": draw(st.sampled_from(SIDES)),
        "height_px": draw(st.sampled_from(SIDES)),
        "num_inference_steps": draw(st.integers(1, 4)),
        "seed": draw(st.integers(0, 2**32)),
        "guidance_scale": draw(st.sampled_from([1.0, 1.0, 2.5])),
        "lora": draw(st.sampled_from([None, "dark", "anime"])),
        "lora_strength": draw(st.sampled_from([0.0, 0.35, 1.5])),
        "prompt": draw(st.sampled_from(["a red boat", "seekor kucing di pantai", ""])),
    }
    sources = draw(st.integers(0, 3))
    if sources:
        sides = [draw(st.sampled_from(SIDES)) for _ in range(2 * sources)]
        sizes = zip(sides[::2], sides[1::2], strict=True)
        changes["images"] = tuple(a_gradient(w, h, turn) for turn, (w, h) in enumerate(sizes))
        strength = draw(st.sampled_from([None, 0.4, 1.0]))
        if sources == 1 and strength is not None:  # the source then has the picture's own size
            size = changes["width_px"], changes["height_px"]
            changes |= {"images": (a_gradient(*size),), "strength": strength}
    return a_job(**changes), draw(st.integers(0, 3))  # and the step at which it joins


def rows_of(model, company):
    return a_conditioner(model[0], Denoiser(*model)).rows([job for job, _ in company])


def _references(row):
    return 0 if row.references is None else row.references.shape[1]


def pictures(model, company):
    denoiser = Denoiser(*model)
    rows = a_conditioner(model[0], denoiser).rows([job for job, _ in company])
    clock = 0
    while not all(row.is_done for row in rows):
        here = [
            row
            for row, (_, joins) in zip(rows, company, strict=True)
            if joins <= clock and not row.is_done
        ]
        if here:
            denoiser.step(here)
        clock += 1
    return [to_pixels(denoiser.decode(row)).rgb for row in rows]


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def served(load):
    """As a CPU serves it that multiplies bfloat16 itself."""
    return load("fine", dtype=torch.bfloat16)


@pytest.mark.parametrize("name", ["fine", "coarse", "served"])
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(company=st.lists(jobs(), min_size=2, max_size=5))
def test_a_picture_does_not_depend_on_its_neighbours(name, threads, request, company):
    model = request.getfixturevalue(name)
    together = pictures(model, company)
    for picture, alone in zip(together, company, strict=True):
        is_same = picture == pictures(model, [alone])[0]
        assert is_same


@settings(max_examples=10, deadline=None)
@given(company=st.lists(jobs(), min_size=2, max_size=4))
def test_in_the_strict_way_no_product_spans_two_pictures(fine, company):
    components, styles = replace(fine[0], is_strict=True), fine[1]
    most = max(
        len(row.prompt[0]) + row.latents.shape[1] + _references(row)
        for row in rows_of(fine, company)
    )
    weights = {part.untyped_storage().data_ptr() for part in components.transformer.parameters()}
    heights = []

    def counted(x, weight, bias=None, product=functional.linear):
        if weight.untyped_storage().data_ptr() in weights:
            heights.append(x.shape[-2])
        return product(x, weight, bias)

    with patch.object(functional, "linear", counted):
        together = pictures((components, styles), company)
    assert max(heights) <= most
    assert together == pictures(fine, company)
