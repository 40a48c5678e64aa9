import pytest
import torch
from diffusers import AutoencoderKLFlux2
from torch import nn

from iris.engine.convolutions import Convolutions, Unfinished
from iris.engine.pointwise import Pointwise, activated, enlarged, levels
from iris.errors import StoreError
from tests.engine.conftest import in_float64


@pytest.fixture
def convolutions(many_widths):
    return Convolutions(many_widths.decoder, Pointwise(compiled=False))


@pytest.mark.parametrize("half", ["encoder", "decoder"])
def test_a_half_of_another_kind_is_refused(half, load):
    components, _ = load("fine")
    part = getattr(components.vae, half)
    part.mid_block.resnets[0].nonlinearity = nn.GELU()
    with pytest.raises(StoreError, match="not built as"):
        Convolutions(part, Pointwise(compiled=False))


def test_attention_where_flux_has_none_is_refused():
    """It would be passed over."""
    blocks = {
        "down_block_types": ("AttnDownEncoderBlock2D",),
        "up_block_types": ("UpDecoderBlock2D",),
    }
    vae = AutoencoderKLFlux2(block_out_channels=(32,), **blocks)
    with pytest.raises(StoreError, match="not built as"):
        Convolutions(vae.encoder, Pointwise(compiled=False))
    Convolutions(vae.decoder, Pointwise(compiled=False))


@torch.inference_mode()
def test_in_float32_a_norm_is_exact_though_channels_are_last(convolutions):
    """Two channels are far from the picture, and the norm hardly sees it, as in iris-mini."""
    x = torch.randn(1, 16, 384, 384, generator=torch.Generator().manual_seed(0))
    x[:, 4] += 300.7
    x[:, 5] -= 300.7
    norm = nn.GroupNorm(1, 16)
    nn.init.constant_(norm.weight, 100.0)
    exact = nn.functional.silu(in_float64(norm)(x.double()))
    ours = convolutions.activated(norm, Unfinished(x.to(memory_format=torch.channels_last)))
    off = (ours - exact).abs().amax((0, 2, 3))
    off[4:6] = 0.0
    assert float(off.max()) < 8e-5


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (6, 4)])
@torch.inference_mode()
def test_in_float32_a_picture_is_enlarged_in_one_go_up_to_its_edges(
    size, convolutions, many_widths
):
    upsampler = many_widths.decoder.up_blocks[0].upsamplers[0]
    x = torch.randn(1, upsampler.channels, *size)
    ours = convolutions.enlarged(upsampler, Unfinished(x)).whole()
    assert torch.allclose(ours, upsampler(x), rtol=1e-5, atol=1e-5)
    assert float(ours.std()) > 0.1


@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_norm_and_activation_by_channel_are_those_by_group(scale):
    generator = torch.Generator().manual_seed(1)
    x = scale * torch.randn(1, 64, 9, 14, generator=generator) + 3.0
    offset = scale * torch.randn(64, generator=generator)
    norm = nn.GroupNorm(32, 64, eps=1e-6)
    with torch.no_grad():
        norm.weight.normal_(generator=generator)
        norm.bias.normal_(generator=generator)
        last = x.to(memory_format=torch.channels_last)
        ours = activated(last, *levels(last, offset, norm.weight, norm.bias, 32, 1e-6))
        theirs = nn.functional.silu(norm(x + offset[:, None, None]))
        assert torch.allclose(ours, theirs, atol=2e-5)


def test_what_is_flat_is_normed_to_nothing():
    flat = torch.full((1, 32, 8, 700), 1000.1)
    scale, shift = levels(flat, torch.zeros(32), torch.ones(32), torch.zeros(32), 32, 1e-6)
    assert float((flat * scale + shift).abs().max()) < 1.0


def test_enlarged_each_pixel_is_four_with_channels_last():
    x = torch.randn(1, 6, 3, 5).to(memory_format=torch.channels_last)
    offset = torch.randn(6)
    large = enlarged(x, offset)
    theirs = nn.functional.interpolate(x + offset[:, None, None], scale_factor=2.0, mode="nearest")
    assert torch.equal(large, theirs)
    assert large.is_contiguous(memory_format=torch.channels_last)
