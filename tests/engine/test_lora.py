import shutil
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file

from iris.engine.lora import Adapter, install_styles, read_adapters
from iris.errors import StoreError

FILE = "pytorch_lora_weights.safetensors"


@pytest.fixture
def style(folders, tmp_path):
    """A copy of a style to spoil: (folder, tensors)."""
    shutil.copytree(folders["fine"] / "styles" / "dark", tmp_path / "dark")
    return tmp_path / "dark", load_file(tmp_path / "dark" / FILE)


@pytest.fixture
def transformer(fine):
    return fine[0].transformer


@pytest.fixture
def copies(folders, tmp_path):
    """Ten folders that hold the same style."""
    made = {f"style-{number}": tmp_path / str(number) for number in range(10)}
    for folder in made.values():
        shutil.copytree(folders["fine"] / "styles" / "dark", folder)
    return made


@torch.no_grad()
def test_a_style_adds_its_own_product_by_its_strength_and_scale():
    torch.manual_seed(0)
    adapter = Adapter(torch.randn(2, 6), torch.randn(5, 2), scale=0.5)
    x, y = torch.randn(7, 6), torch.randn(7, 5)
    expected = y + 0.8 * 0.5 * (x @ adapter.down.T) @ adapter.up.T
    some = y[:, 1:3].contiguous()
    adapter.add_to(y, x, 0.8, slice(None))
    assert torch.allclose(y, expected, atol=1e-5)
    adapter.add_to(some, x, 0.8, slice(1, 3))
    assert torch.allclose(some, expected[:, 1:3], atol=1e-5)


@pytest.mark.parametrize(("name", "strength"), [(None, 0.8), ("dark", 0.0)])
def test_what_changes_nothing_is_not_worn(fine, name, strength):
    assert fine[1].wear(name, strength) is None


def test_pictures_of_one_style_share_its_memory(transformer, copies):
    styles = install_styles(transformer, copies)
    one, other = styles.wear("style-0", 0.2), styles.wear("style-0", 1.0)
    assert one.style is other.style
    assert (one.strength, other.strength) == (0.2, 1.0)


def test_what_lies_on_the_device_stays_within_the_budget(transformer, copies):
    size = install_styles(transformer, copies).wear("style-0", 1.0).style.num_bytes
    styles = install_styles(transformer, copies, kept_bytes=3 * size)
    seen = [weakref.ref(styles.wear(name, 1.0).style) for name in copies]
    assert [name for name, one in zip(copies, seen, strict=True) if one() is not None] == [
        "style-7",
        "style-8",
        "style-9",
    ]


def test_the_style_asked_for_last_is_let_go_of_last(transformer, copies):
    size = install_styles(transformer, copies).wear("style-0", 1.0).style.num_bytes
    styles = install_styles(transformer, copies, kept_bytes=2 * size)
    first = weakref.ref(styles.wear("style-0", 1.0).style)
    second = weakref.ref(styles.wear("style-1", 1.0).style)
    styles.wear("style-0", 1.0)
    styles.wear("style-2", 1.0)
    assert first() is not None
    assert second() is None


def test_a_style_in_use_is_not_loaded_twice_when_the_budget_has_let_go_of_it(transformer, copies):
    styles = install_styles(transformer, copies, kept_bytes=0)
    worn = styles.wear("style-0", 1.0)
    styles.wear("style-1", 1.0)
    assert styles.wear("style-0", 1.0).style is worn.style


def test_a_picture_keeps_the_version_it_began_with(transformer, folders):
    dark, anime = (folders["fine"] / "styles" / name for name in ("dark", "anime"))
    styles = install_styles(transformer, {"mood": dark})
    before = styles.wear("mood", 1.0)
    kept = {layer: adapter.down.clone() for layer, adapter in before.style.adapters.items()}
    styles.serve({"mood": anime, "new": dark})
    after = styles.wear("mood", 1.0)
    assert all(torch.equal(before.style.adapters[layer].down, kept[layer]) for layer in kept)
    assert not any(torch.equal(after.style.adapters[layer].down, kept[layer]) for layer in kept)
    assert styles.wear("new", 1.0).style is before.style
    assert styles.names == {"mood", "new"}


def test_one_style_that_does_not_fit_leaves_everything_as_it_was(transformer, folders, style):
    folder, tensors = style
    tensors.popitem()
    save_file(tensors, folder / FILE)
    styles = install_styles(transformer, {"dark": folders["fine"] / "styles" / "dark"})
    with pytest.raises(StoreError):
        styles.serve({"anime": folders["fine"] / "styles" / "anime", "broken": folder})
    assert styles.names == {"dark"}


def test_memory_is_given_back_when_it_is_asked_for(transformer, copies):
    styles = install_styles(transformer, copies)
    idle = weakref.ref(styles.wear("style-0", 1.0).style)
    worn = styles.wear("style-1", 1.0)
    styles.let_go()
    assert idle() is None
    assert styles.wear("style-1", 0.3).style is worn.style


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


def test_a_style_for_a_layer_the_base_lacks_is_refused(transformer, style):
    folder, tensors = style
    renamed = {key.replace("transformer_blocks.0", "transformer_blocks.9"): value
               for key, value in tensors.items()}  # fmt: skip
    save_file(renamed, folder / FILE)
    with pytest.raises(StoreError, match="does not have"):
        install_styles(transformer, {"dark": folder})


def test_a_style_for_another_width_is_refused(transformer, style):
    folder, tensors = style
    key = next(key for key in tensors if key.endswith("lora_A.weight"))
    tensors[key] = torch.zeros(4, 1 + tensors[key].shape[1])
    save_file(tensors, folder / FILE)
    with pytest.raises(StoreError, match="another base"):
        install_styles(transformer, {"dark": folder})


def test_a_style_of_two_ranks_in_one_layer_is_refused(transformer, style):
    folder, tensors = style
    key = next(key for key in tensors if key.endswith("lora_A.weight"))
    tensors[key] = tensors[key][:2]
    save_file(tensors, folder / FILE)
    with pytest.raises(StoreError, match="two ranks"):
        install_styles(transformer, {"dark": folder})
