"""Compiled, the stretches between matrix products give the same, and compile only at start."""

import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from iris.engine.denoiser import Denoiser
from tests.engine.conftest import stepped
from tests.engine.test_company import jobs

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the compiler's own modules
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module", params=[False, True], ids=["", "styles taken along"])
def model(load, request):
    """And its denoiser, compiled."""
    assert shutil.which("g++") or shutil.which("clang++"), "compiling for a CPU needs a compiler"
    parts = load("fine")
    denoiser = Denoiser(*parts, compiled=True)
    if request.param:  # as on CUDA
        denoiser._transformer.dress_in_products()
    denoiser.warm()
    return parts, denoiser


def latents(denoiser, model, company):
    """Where all their steps, taken together, lead each."""
    return [row.latents for row in stepped(model, denoiser, company)]


def has_tokens(drawn):
    """Several: one alone is a graph of its own, and no model that is served has such pictures."""
    job, _ = drawn
    return job.width_px * job.height_px > 16 * 16


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(company=st.lists(jobs().filter(has_tokens), min_size=1, max_size=5))
def test_no_company_is_compiled_for_while_it_waits_or_runs_as_it_is(model, company, compiled_only):
    parts, compiled = model
    latents(compiled, parts, [job for job, _ in company])


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(company=st.lists(jobs(), min_size=1, max_size=4))
def test_compiled_or_not_a_picture_is_the_same_within_rounding(model, fine, company):
    parts, compiled = model
    company = [job for job, _ in company]
    pairs = zip(
        latents(compiled, parts, company), latents(Denoiser(*fine), fine, company), strict=True
    )
    for fast, plain in pairs:
        assert torch.allclose(fast, plain, rtol=1e-3, atol=1e-4)
