import copy
import shutil

import pytest
import torch
from diffusers import AutoencoderKLFlux2
from torch import nn
from torch._dynamo.utils import counters

from iris.engine.decoder import PictureDecoder, _normed
from iris.engine.latents import Grid
from iris.engine.pointwise import Pointwise, activated, enlarged, levels
from iris.engine.recordings import Recordings
from iris.errors import StoreError
from tests.engine.test_recordings import Rerun


def latents(components, rows=5, columns=7):
    channels = components.vae.config.latent_channels
    return torch.randn(1, channels, rows, columns, generator=torch.Generator().manual_seed(3))


def exact(vae, given):
    """What the library gives in float64, its channels first."""
    wide = copy.deepcopy(vae).to(torch.float64, memory_format=torch.contiguous_format)
    return wide.decode(given.double(), return_dict=False)[0]


@pytest.mark.parametrize("model", ["fine", "coarse"])
@torch.inference_mode()
def test_in_bfloat16_a_picture_is_the_librarys_to_the_bit(model, load):
    components, _ = load(model, torch.bfloat16)
    given = latents(components).bfloat16()
    expected = components.vae.decode(given, return_dict=False)[0]
    assert torch.equal(PictureDecoder(components.vae, Pointwise(compiled=False))(given), expected)


@pytest.mark.parametrize("model", ["fine", "coarse"])
@torch.inference_mode()
def test_in_float32_a_picture_is_the_librarys_within_rounding(model, request):
    components, _ = request.getfixturevalue(model)
    given = latents(components)
    picture = PictureDecoder(components.vae, Pointwise(compiled=False))(given)
    assert torch.allclose(picture, exact(components.vae, given).float(), rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_in_float32_a_norm_is_exact_though_channels_are_last():
    """Two channels are far from the picture, and the norm hardly sees it, as in iris-mini."""
    x = torch.randn(1, 16, 384, 384, generator=torch.Generator().manual_seed(0))
    x[:, 4] += 300.7
    x[:, 5] -= 300.7
    norm = nn.GroupNorm(1, 16)
    nn.init.constant_(norm.weight, 100.0)
    exact = copy.deepcopy(norm).double()(x.double())
    off = (_normed(norm, x.to(memory_format=torch.channels_last)) - exact).abs().amax((0, 2, 3))
    off[4:6] = 0.0
    assert float(off.max()) < 8e-5


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


@pytest.fixture(scope="module")
def vae():
    """All that klein's has: attention, shortcuts where widths change, biases that are felt.

    And more widths, as iris-mini has: a compiler makes few graphs of one function.
    """
    torch.manual_seed(0)
    vae = AutoencoderKLFlux2(
        block_out_channels=(4, 8, 12, 16, 20, 24),
        down_block_types=("DownEncoderBlock2D",) * 6,
        up_block_types=("UpDecoderBlock2D",) * 6,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
    )
    for module in vae.modules():
        if isinstance(module, nn.Conv2d | nn.GroupNorm):
            nn.init.normal_(module.bias)
    return vae.eval().requires_grad_(False).to(memory_format=torch.channels_last)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # the compiler's
@torch.inference_mode()
def test_compiled_a_picture_is_the_librarys_within_rounding(vae):
    assert shutil.which("g++") or shutil.which("clang++"), "compiling for a CPU needs a compiler"
    pointwise = Pointwise(compiled=True)
    decoder = PictureDecoder(vae, pointwise)
    decoder.warm()
    pointwise.settle()
    before = counters["stats"]["unique_graphs"]
    for rows, columns in ((5, 7), (12, 3), (9, 9)):
        given = torch.randn(1, 4, rows, columns)
        expected = exact(vae, given).float()
        assert float(expected.std()) > 0.1
        assert torch.allclose(decoder(given), expected, rtol=1e-4, atol=1e-4)
    assert counters["stats"]["unique_graphs"] == before  # nobody waits for a compiler


@torch.inference_mode()
def test_pictures_are_recorded_up_to_the_largest_that_is_common(vae):
    plain = PictureDecoder(vae, Pointwise(compiled=False))
    decoder = PictureDecoder(vae, Pointwise(compiled=False))
    recorder = Rerun()
    decoder.record_in(Recordings("decode", recorder))
    decoder.warm([Grid(4, 6), Grid(6, 6), Grid(4, 6)])
    assert recorder.recorded == 2
    for rows, columns, recorded in ((6, 6, 2), (4, 6, 2), (3, 12, 3), (7, 6, 3)):
        for _ in range(3):
            given = torch.randn(1, 4, rows, columns)
            assert torch.equal(decoder(given), plain(given))
        assert recorder.recorded == recorded


@torch.inference_mode()
def test_only_what_is_not_recorded_stops_on_its_way(vae):
    decoder = PictureDecoder(vae, Pointwise(compiled=False))
    decoder.record_in(Recordings("decode", Rerun()))
    decoder.warm([Grid(4, 6)])
    stops = [len(list(decoder.pieces(torch.randn(1, 4, rows, 6)))) for rows in (4, 5)]
    assert stops[0] == 0
    assert stops[1] > 10


@pytest.mark.gpu
@torch.inference_mode()
def test_on_a_gpu_a_picture_replayed_is_the_picture_and_the_librarys_within_rounding(vae):
    gpu = copy.deepcopy(vae).to("cuda", torch.bfloat16)
    pointwise = Pointwise(compiled=True)
    decoder = PictureDecoder(gpu, pointwise)
    decoder.record_in(Recordings("decode"))
    decoder.warm([Grid(12, 10), Grid(8, 6)])
    pointwise.settle()
    for rows, columns in ((12, 10), (8, 6), (5, 7), (12, 12)):
        given = [torch.randn(1, 4, rows, columns, device="cuda") for _ in range(4)]
        pictures = [decoder(one.bfloat16()) for one in given]  # done, recorded, replayed
        again = [decoder(one.bfloat16()) for one in given]
        for one, picture, same in zip(given, pictures, again, strict=True):
            assert torch.equal(picture, same)
            expected = exact(vae, one.cpu()).float()
            off = (picture.float().cpu() - expected).norm() / expected.norm()
            assert float(off) < 0.03
