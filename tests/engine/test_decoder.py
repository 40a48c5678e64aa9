import pytest
import torch
from torch import nn

from iris.engine.decoder import PictureDecoder
from iris.engine.pointwise import Pointwise, activated, levels
from iris.errors import StoreError


def latents(components, rows=5, columns=7):
    channels = components.vae.config.latent_channels
    return torch.randn(1, channels, rows, columns, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("model", ["fine", "coarse"])
@torch.inference_mode()
def test_a_picture_is_the_librarys_to_the_bit(model, request):
    components, _ = request.getfixturevalue(model)
    given = latents(components)
    expected = components.vae.decode(given, return_dict=False)[0]
    assert torch.equal(PictureDecoder(components.vae, Pointwise(compiled=False))(given), expected)


@torch.inference_mode()
def test_what_is_decoded_stays_as_it_is(fine):
    given = latents(fine[0])
    before = given.clone()
    PictureDecoder(fine[0].vae, Pointwise(compiled=False))(given)
    assert torch.equal(given, before)


def test_a_decoder_of_another_kind_is_refused(load):
    components, _ = load("fine")
    components.vae.decoder.mid_block.resnets[0].nonlinearity = nn.GELU()
    with pytest.raises(StoreError, match="not built as"):
        PictureDecoder(components.vae, Pointwise(compiled=False))


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_norm_and_activation_by_channel_are_those_by_group(scale):
    generator = torch.Generator().manual_seed(1)
    x = scale * torch.randn(1, 64, 9, 14, generator=generator) + 3.0
    norm = nn.GroupNorm(32, 64, eps=1e-6)
    with torch.no_grad():
        norm.weight.normal_(generator=generator)
        norm.bias.normal_(generator=generator)
        last = x.to(memory_format=torch.channels_last)
        ours = activated(last, *levels(last, norm.weight, norm.bias, 32, 1e-6))
        assert torch.allclose(ours, nn.functional.silu(norm(x)), atol=2e-5)
