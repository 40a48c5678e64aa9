import pytest
import torch

from iris.engine.denoiser import Denoiser, to_pixels
from iris.engine.flow import euler_step
from iris.engine.loader import load_components
from iris.engine.lora import install_styles
from iris.engine.transformer import PackedTransformer
from tests.engine.conftest import a_conditioner, a_gradient, a_job


def picture(model, job):
    denoiser = Denoiser(*model)
    (row,) = a_conditioner(model[0], denoiser).rows([job])
    assert not isinstance(row, Exception), row
    steps = 0
    while not row.is_done:
        denoiser.step([row])
        steps += 1
    return denoiser.decode(row), steps


@pytest.mark.parametrize("model", ["fine", "coarse"])
@pytest.mark.parametrize("size", [(16, 16), (16, 960), (960, 16), (48, 80), (304, 176)])
def test_a_picture_has_exactly_the_size_asked_for(model, size, request):
    image, _ = picture(request.getfixturevalue(model), a_job(width_px=size[0], height_px=size[1]))
    assert image.shape == (3, size[1], size[0])
    assert float(image.min()) >= 0.0
    assert float(image.max()) <= 1.0


@pytest.mark.parametrize("steps", [1, 3, 50])
def test_a_picture_takes_the_steps_asked_for_whatever_its_strength(steps, fine):
    _, taken = picture(fine, a_job(num_inference_steps=steps))
    assert taken == steps
    source = a_gradient(64, 64)
    _, taken = picture(fine, a_job(num_inference_steps=steps, images=(source,), strength=0.1))
    assert taken == steps


def test_guidance_runs_a_second_pass_only_above_one(fine, monkeypatch):
    passes = []
    forward = PackedTransformer.__call__
    monkeypatch.setattr(
        PackedTransformer,
        "__call__",
        lambda self, prompts, *rest: passes.extend(prompts) or forward(self, prompts, *rest),
    )
    picture(fine, a_job(num_inference_steps=3, guidance_scale=1.0))
    assert len(passes) == 3
    picture(fine, a_job(num_inference_steps=3, guidance_scale=1.5))
    assert len(passes) == 3 + 6


def test_bfloat16_paints_the_same_picture_roughly(folders, coarse):
    folder = folders["coarse"]
    components = load_components(folder / "weights", torch.device("cpu"), torch.bfloat16)
    styles = install_styles(components.transformer, {"dark": folder / "styles" / "dark"})
    job = a_job(width_px=128, height_px=96, lora="dark", guidance_scale=2.0)
    rough, _ = picture((components, styles), job)
    exact, _ = picture(coarse, job)
    assert float((rough - exact).abs().mean()) < 0.05


def test_latents_are_float32_whatever_the_model_computes_in(load):
    model = load("fine", dtype=torch.bfloat16)
    denoiser = Denoiser(*model)
    jobs = [a_job(guidance_scale=2.0), a_job(images=(a_gradient(64, 64),), strength=0.5)]
    for row in a_conditioner(model[0], denoiser).rows(jobs):
        assert row.latents.dtype == torch.float32
        denoiser.step([row])
        assert row.latents.dtype == torch.float32


def test_pixels_are_rounded_to_the_nearest_level_row_by_row():
    image = torch.tensor([[[0.0, 1.0]], [[0.5, 0.498]], [[0.001, 0.0021]]])
    pixels = to_pixels(image)
    assert (pixels.width_px, pixels.height_px) == (2, 1)
    assert pixels.rgb == bytes([0, 128, 0, 255, 127, 1])


def test_a_step_that_fails_at_one_row_has_moved_none(fine, monkeypatch):
    """Who is repeated alone afterwards takes that step once."""
    denoiser = Denoiser(*fine)
    rows = a_conditioner(fine[0], denoiser).rows([a_job(seed=1), a_job(seed=2)])
    before = [(row.step, row.latents.clone()) for row in rows]
    taken = []

    def short_of_memory(*given):
        taken.append(given)
        if len(taken) == 2:
            raise torch.OutOfMemoryError
        return euler_step(*given)

    monkeypatch.setattr("iris.engine.denoiser.euler_step", short_of_memory)
    with pytest.raises(torch.OutOfMemoryError):
        denoiser.step(rows)
    for row, (step, latents) in zip(rows, before, strict=True):
        assert row.step == step
        assert torch.equal(row.latents, latents)
