"""Styles in the blocks' own products give what products of their own give."""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from iris.engine import dressing, lora
from iris.engine.denoiser import Denoiser
from iris.engine.dressing import ROOM
from tests.engine.conftest import a_job, stepped
from tests.engine.test_company import jobs


@pytest.fixture(scope="module")
def dressed(load):
    model = load("fine")
    denoiser = Denoiser(*model)
    denoiser._transformer.dress_in_products()
    return model, denoiser


def latents(model, denoiser, company):
    return [row.latents for row in stepped(model, denoiser, company)]


def assert_the_same(some, others):
    for one, other in zip(some, others, strict=True):
        assert torch.allclose(one, other, rtol=1e-3, atol=1e-4)


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(company=st.lists(jobs(), min_size=1, max_size=4))
def test_whatever_a_company_wears(dressed, fine, company):
    company = [job for job, _ in company]
    assert_the_same(latents(*dressed, company), latents(fine, Denoiser(*fine), company))


def test_a_style_goes_through_no_product_of_its_own(dressed, monkeypatch):
    monkeypatch.setattr(lora.Adapter, "add_to", alone := Count())
    monkeypatch.setattr(dressing.Dressed, "add_to", beside := Count())
    latents(*dressed, [a_job(lora="dark", num_inference_steps=1)])
    blocks = dressed[0][0].transformer.transformer_blocks
    assert alone.calls == 0
    assert beside.calls == 2 * len(blocks)  # what attention gives comes without room


@torch.inference_mode()
def test_tokens_before_the_first_and_after_the_last_in_a_style_are_not_gone_over():
    layer = nn.Linear(4, 3)
    wide = torch.cat([layer.weight, torch.ones(3, ROOM)], dim=1)
    strengths = torch.tensor([[0.0], [0.0], [0.5], [0.0]])
    rows = dressing.Dressed({layer: wide}, {layer: torch.ones(2, 4)}, strengths, slice(1, 3))
    tokens = rows.over((2, 1, 3, 2), torch.tensor([0, 0, 1, 2, 2, 2, 3, 3]))
    assert tokens.within == slice(2, 6)
    x = functional.pad(torch.ones(8, 4), (0, ROOM))
    x[[0, 1, 6, 7], :4] = torch.inf  # whatever is gone over is no number
    for outputs in (slice(None), slice(1, 3)):
        y = tokens.product(layer, x, outputs)
        added = y[2:6] - layer(torch.ones(4))[outputs]
        expected = torch.tensor([0.0, 4.0, 4.0, 4.0])[:, None].expand(added.shape)
        assert torch.allclose(added, expected)
        assert not x[[0, 1, 6, 7], 4:].any()


def test_styles_that_do_not_fit_together_get_products_of_their_own(dressed, fine, monkeypatch):
    company = [a_job(lora="dark"), a_job(lora="anime", seed=5), a_job(seed=7)]
    expected = latents(fine, Denoiser(*fine), company)
    monkeypatch.setattr(dressing, "_num_columns", lambda _: ROOM - 8)
    assert_the_same(latents(*dressed, company), expected)


def test_a_style_that_nobody_holds_any_more_is_let_go_of(load):
    model = load("fine")
    denoiser = Denoiser(*model)
    denoiser._transformer.dress_in_products()
    latents(model, denoiser, [a_job(lora="dark")])
    model[1].let_go()
    assert not list(model[1]._alive)


def test_the_layers_stay_what_they_are(load):
    (components, _), (before, _) = load("fine"), load("fine")
    Denoiser(components, lora.Styles(components.transformer))._transformer.dress_in_products()
    pairs = zip(components.transformer.modules(), before.transformer.modules(), strict=True)
    for layer, other in pairs:
        if isinstance(layer, nn.Linear):
            assert torch.equal(layer.weight, other.weight)
            x = torch.randn(3, layer.in_features)
            assert torch.allclose(layer(x), other(x), atol=1e-5)


class Count:
    def __init__(self):
        self.calls = 0

    def __call__(self, *_):
        self.calls += 1
