import copy
import shutil
from dataclasses import replace

import pytest
import torch

from iris.engine.canvas import Canvas
from iris.engine.encoder import ImageEncoder
from iris.engine.latents import normalise, patchify, to_tokens
from iris.engine.pointwise import Pointwise
from iris.jobs import Pixels
from tests.engine.conftest import a_gradient, in_float64


def encoded(components, image, width_px, height_px, pointwise=None):
    encoder = ImageEncoder(components, pointwise or Pointwise(compiled=False))
    canvas = Canvas.of(width_px, height_px, components.pixels_per_token, None)
    return encoder.encode(image, canvas)


def of_the_library(vae, image):
    """Tokens of an image whose size is the model's, as this autoencoder makes them."""
    weight = vae.encoder.conv_in.weight
    values = torch.frombuffer(bytearray(image.rgb), dtype=torch.uint8)
    values = values.view(1, image.height_px, image.width_px, 3).permute(0, 3, 1, 2)
    values = (2.0 * (values.float() / 255.0) - 1.0).to(weight)
    return to_tokens(normalise(patchify(vae.encode(values).latent_dist.mode()), vae))


@pytest.mark.parametrize("model", ["fine", "coarse"])
@torch.inference_mode()
def test_in_bfloat16_an_image_is_the_librarys_to_the_bit(model, load):
    components, _ = load(model, torch.bfloat16)
    image = a_gradient(96, 128)
    ours = encoded(components, image, 96, 128)
    assert torch.equal(ours, of_the_library(components.vae, image))


@pytest.mark.parametrize("model", ["fine", "coarse"])
@torch.inference_mode()
def test_in_float32_an_image_is_the_librarys_within_rounding(model, request):
    components, _ = request.getfixturevalue(model)
    image = a_gradient(96, 128)
    exact = of_the_library(in_float64(components.vae), image).float()
    assert torch.allclose(encoded(components, image, 96, 128), exact, rtol=1e-5, atol=1e-5)


def test_an_image_off_the_models_grid_is_continued_by_its_edge(coarse):
    components, _ = coarse
    image = a_gradient(48, 80)  # 32 pixels a token: the grid is 64x96
    rows = [image.rgb[i : i + 48 * 3] for i in range(0, len(image.rgb), 48 * 3)]
    wide = [row + row[-3:] * 16 for row in rows]
    padded = Pixels(64, 96, b"".join(wide + [wide[-1]] * 16))
    assert torch.equal(encoded(components, image, 48, 80), encoded(components, padded, 64, 96))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # the compiler's
@torch.inference_mode()
def test_compiled_an_image_is_the_librarys_within_rounding(many_widths, fine, compiled_only):
    assert shutil.which("g++") or shutil.which("clang++"), "compiling for a CPU needs a compiler"
    components = replace(fine[0], vae=many_widths, pixels_per_token=64)
    encoder = ImageEncoder(components, Pointwise(compiled=True))
    encoder.warm()
    for width, height in ((320, 448), (192, 768), (576, 576)):
        image = a_gradient(width, height)
        exact = of_the_library(in_float64(many_widths), image).float()
        assert float(exact.std()) > 0.1
        ours = encoder.encode(image, Canvas.of(width, height, 64, None))
        assert torch.allclose(ours, exact, rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@torch.inference_mode()
def test_on_a_gpu_an_image_is_the_librarys_within_rounding(many_widths, fine):
    gpu = copy.deepcopy(many_widths).to("cuda", torch.bfloat16)
    here = {"device": torch.device("cuda"), "dtype": torch.bfloat16}
    components = replace(fine[0], vae=gpu, pixels_per_token=64, **here)
    encoder = ImageEncoder(components, Pointwise(compiled=True))
    encoder.warm()
    for width, height in ((320, 448), (192, 768)):
        image = a_gradient(width, height)
        exact = of_the_library(in_float64(many_widths), image).float()
        ours = encoder.encode(image, Canvas.of(width, height, 64, None)).float().cpu()
        assert float((ours - exact).norm() / exact.norm()) < 0.03
