"""However its weights are held, a model paints the same picture."""

import pytest
import torch

from iris.engine.denoiser import Denoiser
from iris.engine.loader import load_components
from iris.engine.lora import install_styles
from iris.engine.quantised import Int8Linear
from iris.engine.streaming import StreamedBlocks
from iris.errors import StoreError
from iris.fit import Fit
from tests.engine.conftest import a_conditioner, a_job

CPU = torch.device("cpu")
JOB = {"prompt": "sebuah perahu merah", "lora": "dark", "lora_strength": 1.0, "guidance_scale": 2.0}


def picture(folder, fit):
    components = load_components(folder / "weights", CPU, torch.float32, fit)
    styles = install_styles(components.transformer, {"dark": folder / "styles" / "dark"})
    denoiser = Denoiser(components, styles)
    (row,) = a_conditioner(components, denoiser).rows([a_job(**JOB)])
    if isinstance(row, Exception):
        raise row
    while not row.is_done:
        denoiser.step([row])
    return denoiser.decode(row)


@pytest.fixture(scope="module")
def exact(folders):
    return picture(folders["fine"], Fit())


@pytest.mark.parametrize("transformer", ["whole", "offload"])
@pytest.mark.parametrize("text_encoder", ["whole", "offload", "cpu"])
def test_where_weights_lie_changes_nothing(transformer, text_encoder, folders, exact):
    found = picture(folders["fine"], Fit(transformer, text_encoder))
    assert torch.equal(found, exact)


@pytest.mark.parametrize("fit", [Fit("int8", "whole"), Fit("whole", "int8"), Fit("int8", "int8")])
def test_eight_bits_paint_nearly_the_same(fit, folders, exact):
    found = picture(folders["fine"], fit)
    assert not torch.equal(found, exact)
    assert float((found - exact).abs().mean()) < 0.02


def test_blocks_alone_are_held_otherwise(folders):
    transformer = load_components(
        folders["fine"] / "weights", CPU, torch.float32, Fit("int8", "whole")
    ).transformer
    changed = {path for path, m in transformer.named_modules() if isinstance(m, Int8Linear)}
    assert changed
    assert all("transformer_blocks." in path for path in changed)


def test_an_offloaded_text_encoder_has_streamed_layers(folders):
    text = load_components(
        folders["fine"] / "weights", CPU, torch.float32, Fit("whole", "offload")
    ).text_encoder
    assert isinstance(text.layers, StreamedBlocks)


def test_float8_on_a_device_without_it_is_refused_by_name(folders):
    with pytest.raises(StoreError, match="IRIS_TRANSFORMER=fp8 needs"):
        load_components(folders["fine"] / "weights", CPU, torch.float32, Fit("fp8", "whole"))
