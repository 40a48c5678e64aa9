import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from iris.engine.lora import Adapter, GatedLinear, Styles, install_styles, read_adapters
from iris.errors import StoreError

FILE = "pytorch_lora_weights.safetensors"


@pytest.fixture
def two_styles():
    torch.manual_seed(0)
    base = nn.Linear(6, 5)
    adapters = {
        0: Adapter(torch.randn(2, 6), torch.randn(5, 2), scale=0.5),
        1: Adapter(torch.randn(3, 6), torch.randn(5, 3), scale=2.0),
    }
    return Styles(("dark", "anime")), base, adapters, GatedLinear(base, adapters)


def strengths(styles, *wanted):
    return styles.strengths(wanted, torch.device("cpu"))


@pytest.fixture
def style(folders, tmp_path):
    """A copy of a style to spoil: (folder, tensors)."""
    shutil.copytree(folders["fine"] / "styles" / "dark", tmp_path / "dark")
    return tmp_path / "dark", load_file(tmp_path / "dark" / FILE)


@torch.no_grad()
def test_an_open_gate_adds_the_styles_own_product(two_styles):
    styles, base, adapters, layer = two_styles
    x = torch.randn(7, 6)
    for name, index in (("dark", 0), ("anime", 1)):
        adapter = adapters[index]
        added = 0.8 * adapter.scale * (x @ adapter.down.T) @ adapter.up.T
        assert torch.allclose(layer(x, strengths(styles, (name, 0.8))), base(x) + added, atol=1e-5)


@torch.no_grad()
def test_tokens_of_unlike_styles_share_a_pass(two_styles):
    styles, base, _, layer = two_styles
    x = torch.randn(3, 6)
    together = layer(x, strengths(styles, ("dark", 0.4), (None, 0.8), ("anime", 1.5)))
    alone = [
        layer(x[:1], strengths(styles, ("dark", 0.4))),
        base(x[1:2]),
        layer(x[2:], strengths(styles, ("anime", 1.5))),
    ]
    assert torch.allclose(together, torch.cat(alone), atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("closed", [(None, 0.8), ("dark", 0.0)])
def test_a_closed_gate_is_the_base_to_the_bit(two_styles, closed):
    styles, base, _, layer = two_styles
    x = torch.randn(7, 6)
    layer(x, strengths(styles, ("dark", 1.5)))
    assert strengths(styles, closed) is None
    assert torch.equal(layer(x, strengths(styles, closed)), base(x))


@torch.no_grad()
def test_opening_and_closing_never_changes_the_weights(two_styles):
    styles, base, _, layer = two_styles
    before = base.weight.clone()
    for i in range(50):
        layer(torch.randn(2, 6), strengths(styles, (("dark", "anime")[i % 2], 1.5)))
    assert torch.equal(base.weight, before)


def test_every_pair_of_a_style_is_read(folders, style):
    _, tensors = style
    adapters = read_adapters(folders["fine"] / "styles" / "dark")
    assert len(adapters) == len(tensors) // 2 > 0
    assert all(adapter.down.shape[0] == adapter.up.shape[1] == 4 for adapter in adapters.values())


def test_a_file_without_any_pair_is_refused(style):
    folder, _ = style
    save_file({"transformer.x.weight": torch.zeros(2, 2)}, folder / FILE)
    with pytest.raises(StoreError, match="no LoRA"):
        read_adapters(folder)


def test_half_a_pair_is_refused(style):
    folder, tensors = style
    tensors.pop(next(key for key in tensors if key.endswith("lora_B.weight")))
    save_file(tensors, folder / FILE)
    with pytest.raises(StoreError, match="every pair complete"):
        read_adapters(folder)


def test_a_missing_or_broken_file_is_refused_by_name(style, tmp_path):
    folder, _ = style
    (folder / FILE).write_bytes(b"not safetensors")
    with pytest.raises(StoreError, match="cannot be read"):
        read_adapters(folder)
    with pytest.raises(StoreError, match="cannot be read"):
        read_adapters(tmp_path / "nothing")


def test_a_pickle_is_never_loaded(style):
    folder, tensors = style
    (folder / FILE).unlink()
    torch.save(tensors, folder / "pytorch_lora_weights.bin")
    with pytest.raises(StoreError):
        read_adapters(folder)


def test_a_style_for_a_layer_the_base_lacks_is_refused(style):
    folder, tensors = style
    renamed = {key.replace("transformer_blocks.0", "transformer_blocks.9"): value
               for key, value in tensors.items()}  # fmt: skip
    save_file(renamed, folder / FILE)
    transformer = nn.Module()
    with pytest.raises(StoreError, match="does not have"):
        install_styles(transformer, {"dark": folder})


def test_a_style_for_another_width_is_refused(folders, fine, style):
    folder, tensors = style
    key = next(key for key in tensors if key.endswith("lora_A.weight"))
    tensors[key] = torch.zeros(4, 1 + tensors[key].shape[1])
    save_file(tensors, folder / FILE)
    path = key.removeprefix("transformer.").removesuffix(".lora_A.weight")
    parent = nn.Module()
    layer = fine[0].transformer.get_submodule(path)
    parent.get_submodule = lambda name: getattr(layer, "base", layer)
    with pytest.raises(StoreError, match="another base"):
        install_styles(parent, {"dark": folder})
