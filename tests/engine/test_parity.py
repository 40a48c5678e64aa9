"""The engine's picture is the stock pipeline's, for the same components, seed and settings."""

import itertools
import random

import numpy as np
import pytest
import torch
from diffusers import Flux2KleinInpaintPipeline, Flux2KleinPipeline
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from PIL import Image

from iris.engine.denoiser import Denoiser
from iris.engine.flow import unshift
from iris.engine.latents import Grid
from tests.engine.conftest import a_conditioner, a_gradient, a_job

# peft warns when a second adapter is loaded beside the first, which is what we are after.
pytestmark = pytest.mark.filterwarnings("ignore:Already found a .peft_config. attribute")

TOLERANCE = 1e-4  # of a decoded picture in 0..1


@pytest.fixture(scope="module")
def stock(folders):
    """stock(name) -> the library's own pipeline over freshly loaded weights and both styles."""
    pipelines = {}

    def load(name):
        if name not in pipelines:
            folder = folders[name]
            pipeline = Flux2KleinPipeline.from_pretrained(folder / "weights", dtype=torch.float32)
            pipeline.register_to_config(is_distilled=False)  # else it ignores guidance
            pipeline.set_progress_bar_config(disable=True)
            for style in ("dark", "anime"):
                pipeline.load_lora_weights(
                    folder / "styles" / style,
                    weight_name="pytorch_lora_weights.safetensors",
                    use_safetensors=True,
                    adapter_name=style,
                )
            pipelines[name] = pipeline
        return pipelines[name]

    return load


def engine_picture(model, job):
    (picture,), _ = engine_pictures(model, [job])
    return picture


def engine_pictures(model, jobs):
    """All in one packed pass a step; each joins a step after the one before it.

    Also the jobs of every pass.
    """
    components, styles = model
    denoiser = Denoiser(components, styles)
    rows = a_conditioner(components, denoiser).rows(jobs)
    for row in rows:
        if isinstance(row, Exception):
            raise row
    passes = []
    while not all(row.is_done for row in rows):
        here = [i for i, row in enumerate(rows[: len(passes) + 1]) if not row.is_done]
        denoiser.step([rows[i] for i in here])
        passes.append([jobs[i] for i in here])
    return [denoiser.decode(row).permute(1, 2, 0).numpy() for row in rows], passes


def stock_picture(pipeline, components, job, **extra):
    """The stock call, on the model's own grid, cropped to the size that was asked for."""
    per_token = components.pixels_per_token
    grid = Grid.covering(job.width_px, job.height_px, per_token)
    if job.lora is None:
        pipeline.disable_lora()
    else:
        pipeline.enable_lora()
        pipeline.set_adapters([job.lora], [job.lora_strength])
    images = [padded(image, per_token) for image in getattr(job, "images", ())]
    picture = pipeline(
        image=images or None,
        prompt=job.prompt,
        height=grid.rows * per_token,
        width=grid.columns * per_token,
        num_inference_steps=job.num_inference_steps,
        guidance_scale=job.guidance_scale,
        generator=torch.Generator("cpu").manual_seed(job.seed),
        max_sequence_length=components.text_tokens,
        text_encoder_out_layers=components.text_layers,
        output_type="np",
        **extra,
    ).images[0]
    return picture[: job.height_px, : job.width_px]


def padded(pixels, per_token):
    """As a PIL image, its last row and column continued to the model's grid."""
    image = np.frombuffer(pixels.rgb, np.uint8).reshape(pixels.height_px, pixels.width_px, 3)
    down, right = -pixels.height_px % per_token, -pixels.width_px % per_token
    return Image.fromarray(np.pad(image, ((0, down), (0, right), (0, 0)), mode="edge"))


def references(count):
    sizes = [(96, 64), (64, 64), (80, 112), (64, 96), (128, 64)]
    return tuple(a_gradient(w, h, turn) for turn, (w, h) in enumerate(sizes[:count]))


SIZES = [(64, 64), (128, 96), (80, 144)]
STYLES = [(None, 0.6), ("dark", 1.0), ("anime", 0.35)]
COUNTS = [0, 1, 2, 5]
STEPS = [1, 4, 7]
GUIDANCES = [1.0, 2.5]
# Every size with every number of references and every style. Steps and guidance go round so that
# each of these meets each of them, and every style every pair of the two.
MATRIX = [
    (SIZES[a], COUNTS[b], STYLES[c], STEPS[(a + b + c) % 3], GUIDANCES[(a + b // 2) % 2])
    for a, b, c in itertools.product(range(3), range(4), range(3))
]
COMPANIES = [random.Random(7).sample(MATRIX, len(MATRIX))[first::6] for first in range(6)]


def test_the_matrix_leaves_no_pair_of_settings_out():
    for size, count, style, steps, guidance in itertools.product(
        SIZES, COUNTS, STYLES, STEPS, GUIDANCES
    ):
        assert any(case[2:] == (style, steps, guidance) for case in MATRIX)
        assert any(case[0] == size and case[3:] == (steps, guidance) for case in MATRIX)
        assert any(case[1] == count and case[3:] == (steps, guidance) for case in MATRIX)


def matrix_job(size, count, style, steps, guidance):
    changes = {
        "width_px": size[0],
        "height_px": size[1],
        "num_inference_steps": steps,
        "guidance_scale": guidance,
        "lora": style[0],
        "lora_strength": style[1],
        "seed": 11 * count + steps,
    }
    if count:
        changes["images"] = references(count)
    return a_job(**changes)


@pytest.mark.parametrize("model", ["fine", "coarse"])
@pytest.mark.parametrize(("size", "count", "style", "steps", "guidance"), MATRIX)
def test_a_picture_is_the_stock_pipelines(
    model, size, count, style, steps, guidance, stock, request, parity
):
    ours = request.getfixturevalue(model)
    job = matrix_job(size, count, style, steps, guidance)
    expected = stock_picture(stock(model), ours[0], job)
    difference = float(np.abs(engine_picture(ours, job) - expected).max())
    parity.append(difference)
    assert difference <= TOLERANCE


@pytest.mark.parametrize("model", ["fine", "coarse"])
@pytest.mark.parametrize("company", COMPANIES)
def test_a_picture_in_mixed_company_is_the_stock_pipelines(model, company, stock, request, parity):
    """Six cases of the matrix; each joins a step later and leaves when it is done."""
    ours = request.getfixturevalue(model)
    jobs = [matrix_job(*case) for case in company]
    pictures, passes = engine_pictures(ours, jobs)
    fullest = max(passes, key=len)
    assert len(fullest) >= 3
    for setting in ("lora", "num_inference_steps", "guidance_scale"):
        assert len({getattr(job, setting) for job in fullest}) >= 2
    for job, picture in zip(jobs, pictures, strict=True):
        difference = float(np.abs(picture - stock_picture(stock(model), ours[0], job)).max())
        parity.append(difference)
        assert difference <= TOLERANCE


@pytest.mark.parametrize("model", ["fine", "coarse"])
def test_full_strength_is_the_stock_edit(model, stock, request):
    ours = request.getfixturevalue(model)
    job = a_job(width_px=96, height_px=80, images=(a_gradient(96, 80),), strength=1.0, lora="dark")
    expected = stock_picture(stock(model), ours[0], job)
    assert np.abs(engine_picture(ours, job) - expected).max() <= TOLERANCE


@pytest.mark.parametrize("strength", [0.2, 0.75])
def test_partial_strength_is_the_stock_edit_from_the_noised_source(strength, stock, fine):
    components, _ = fine
    pipeline = stock("fine")
    source = a_gradient(96, 80)
    job = a_job(
        width_px=96, height_px=80, images=(source,), strength=strength, num_inference_steps=4
    )
    with torch.no_grad():
        image = pipeline.image_processor.preprocess(padded(source, 16))
        clean = pipeline._encode_vae_image(image, generator=None)
    noise = torch.randn(clean.shape, generator=torch.Generator("cpu").manual_seed(job.seed))
    config = pipeline.scheduler.config
    start = unshift(config, compute_empirical_mu(clean.shape[2] * clean.shape[3], 4), strength)
    expected = stock_picture(
        pipeline,
        components,
        job,
        latents=(1 - strength) * clean + strength * noise,
        sigmas=np.linspace(start, start / 4, 4),
    )
    assert np.abs(engine_picture(fine, job) - expected).max() <= TOLERANCE


def test_the_matrix_can_tell_pictures_apart(fine):
    """Every setting of the matrix moves the picture far beyond the tolerance."""
    base = a_job(images=references(2), num_inference_steps=4)
    changes = [
        {"seed": 2},
        {"prompt": "a blue cup"},
        {"num_inference_steps": 5},
        {"guidance_scale": 2.5},
        {"lora": "dark", "lora_strength": 1.0},
        {"lora": "anime", "lora_strength": 1.0},
        {"images": references(2)[::-1]},
        {"images": references(1)},
    ]
    before = engine_picture(fine, base)
    for change in changes:
        fields = {"images": base.images, "num_inference_steps": 4} | change
        moved = np.abs(engine_picture(fine, a_job(**fields)) - before).max()
        assert moved > 20 * TOLERANCE, change


@pytest.fixture(scope="module")
def stock_inpainting(stock):
    """stock_inpainting(name) -> the library's own pipeline for masks over the same parts."""

    def load(name):
        parts = stock(name).components
        pipeline = Flux2KleinInpaintPipeline(**parts, is_distilled=False)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    return load


def a_mask(width_px, height_px):
    """A rough disc and a corner; edges everywhere between tokens."""
    down, across = np.mgrid[:height_px, :width_px]
    disc = (across - 0.4 * width_px) ** 2 + (down - 0.6 * height_px) ** 2 < 700
    return 255 * (disc | (across + down > 0.85 * (width_px + height_px))).astype(np.uint8)


# A strength is an edit's of one image alone: without one, there is a reference besides.
MASKED = [
    (size, style, STEPS[(a + b + c) % 3], GUIDANCES[(a + c) % 2], strength)
    for (a, size), (b, style), (c, strength) in itertools.product(
        enumerate([(64, 64), (128, 96)]), enumerate(STYLES), enumerate((1.0, 0.5, None))
    )
]


@pytest.mark.parametrize("model", ["fine", "coarse"])
@pytest.mark.parametrize(("size", "style", "steps", "guidance", "strength"), MASKED)
def test_an_edit_within_a_mask_is_the_stock_pipelines(
    model, size, style, steps, guidance, strength, stock, stock_inpainting, request, parity
):
    """Inside the mask; outside, the stock pipeline gives the source as its autoencoder blurs it."""
    ours = request.getfixturevalue(model)
    width, height = size
    source, mask = a_gradient(width, height), a_mask(width, height)
    others = references(1) if strength is None else ()
    job = a_job(
        width_px=width,
        height_px=height,
        images=(source, *others),
        strength=strength,
        mask=mask.tobytes(),
        num_inference_steps=steps,
        guidance_scale=guidance,
        lora=style[0],
        lora_strength=style[1],
        seed=steps,
    )
    adapted = stock(model)
    if style[0] is None:
        adapted.disable_lora()
    else:
        adapted.enable_lora()
        adapted.set_adapters([style[0]], [style[1]])
    components = ours[0]
    grid = Grid.covering(width, height, components.pixels_per_token)
    mu = compute_empirical_mu(image_seq_len=grid.tokens, num_steps=steps)
    first = unshift(adapted.scheduler.config, mu, 1.0 if strength is None else strength)
    expected = stock_inpainting(model)(
        image=padded(source, components.pixels_per_token),
        mask_image=Image.fromarray(mask),
        image_reference=[padded(o, components.pixels_per_token) for o in others] or None,
        prompt=job.prompt,
        height=height,
        width=width,
        strength=1.0,
        sigmas=np.linspace(first, first / steps, steps),
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=torch.Generator("cpu").manual_seed(job.seed),
        max_sequence_length=components.text_tokens,
        text_encoder_out_layers=components.text_layers,
        output_type="np",
    ).images[0]
    inside = mask > 127
    difference = float(np.abs(engine_picture(ours, job) - expected)[inside].max())
    parity.append(difference)
    assert difference <= TOLERANCE
