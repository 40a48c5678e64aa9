import copy
import shutil

import pytest
import torch
from torch import nn

from iris.engine.decoder import PictureDecoder
from iris.engine.latents import Grid
from iris.engine.pointwise import Pointwise
from iris.engine.recordings import Recordings
from iris.errors import StoreError
from tests.engine.conftest import in_float64
from tests.engine.test_recordings import Rerun


def latents(components, rows=5, columns=7):
    channels = components.vae.config.latent_channels
    return torch.randn(1, channels, rows, columns, generator=torch.Generator().manual_seed(3))


def exact(vae, given):
    """What the library gives in float64, its channels first."""
    return in_float64(vae).decode(given.double(), return_dict=False)[0]


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


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # the compiler's
@torch.inference_mode()
def test_compiled_a_picture_is_the_librarys_within_rounding(many_widths, compiled_only):
    assert shutil.which("g++") or shutil.which("clang++"), "compiling for a CPU needs a compiler"
    pointwise = Pointwise(compiled=True)
    decoder = PictureDecoder(many_widths, pointwise)
    decoder.warm()
    pointwise.settle()
    for rows, columns in ((5, 7), (12, 3), (9, 9)):
        given = torch.randn(1, 4, rows, columns)
        expected = exact(many_widths, given).float()
        assert float(expected.std()) > 0.1
        assert torch.allclose(decoder(given), expected, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_pictures_are_recorded_up_to_the_largest_that_is_common(many_widths):
    plain = PictureDecoder(many_widths, Pointwise(compiled=False))
    decoder = PictureDecoder(many_widths, Pointwise(compiled=False))
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
def test_only_what_is_not_recorded_stops_on_its_way(many_widths):
    decoder = PictureDecoder(many_widths, Pointwise(compiled=False))
    decoder.record_in(Recordings("decode", Rerun()))
    decoder.warm([Grid(4, 6)])
    stops = [len(list(decoder.pieces(torch.randn(1, 4, rows, 6)))) for rows in (4, 5)]
    assert stops[0] == 0
    assert stops[1] > 10


@pytest.mark.gpu
@torch.inference_mode()
def test_on_a_gpu_a_picture_replayed_is_the_picture_and_the_librarys_within_rounding(many_widths):
    gpu = copy.deepcopy(many_widths).to("cuda", torch.bfloat16)
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
            expected = exact(many_widths, one.cpu()).float()
            off = (picture.float().cpu() - expected).norm() / expected.norm()
            assert float(off) < 0.03
