from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from iris.errors import StoreError
from iris.store.lora import check_lora, lora_file
from iris.store.tensors import TensorInfo

MODULES = ("transformer_blocks.0.attn.to_q", "single_transformer_blocks.0.attn.to_out")
BASE = {f"{module}.weight": TensorInfo("BF16", (4, 6), 0, 0) for module in MODULES} | {
    "norm.weight": TensorInfo("BF16", (4,), 0, 0)
}
A = f"transformer.{MODULES[0]}.lora_A.weight"
B = f"transformer.{MODULES[0]}.lora_B.weight"


Write = Callable[..., None]


def _check(path: Path, rank: int = 2) -> int:
    return check_lora(path, rank=rank, base_weights=BASE)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pytorch_lora_weights.safetensors"


@pytest.fixture
def refusal(path: Path, write_lora: Write) -> Callable[..., str]:
    """Writes a LoRA and returns why it is refused."""

    def refuse(**how: object) -> str:
        write_lora(path, **how)
        with pytest.raises(StoreError) as caught:
            _check(path)
        assert str(path) in caught.value.message
        return caught.value.message

    return refuse


def test_the_modules_that_will_be_changed_are_counted(path: Path, write_lora: Write) -> None:
    write_lora(path)
    assert _check(path) == 2
    write_lora(path, modules=MODULES[:1])
    assert _check(path) == 1


def test_names_without_the_prefix_are_the_same_modules(path: Path, write_lora: Write) -> None:
    plain = {
        f"{MODULES[0]}.lora_A.weight": np.ones((2, 6), np.float32),
        f"{MODULES[0]}.lora_B.weight": np.ones((4, 2), np.float32),
    }
    write_lora(path, modules=(), change=plain)
    assert _check(path) == 1


def test_an_alpha_of_a_module_that_is_changed_is_allowed(path: Path, write_lora: Write) -> None:
    alpha = {f"transformer.{MODULES[0]}.alpha": np.array(8, np.float32)}
    write_lora(path, change=alpha)
    assert _check(path) == 2


def test_an_empty_style_is_refused(refusal: Callable[..., str]) -> None:
    assert "changes no module" in refusal(modules=())


def test_a_style_for_another_base_is_refused_with_the_modules(refusal: Callable[..., str]) -> None:
    message = refusal(modules=("blocks.0.to_q", "blocks.1.to_q"))
    assert "2 of 2 modules" in message
    assert "blocks.0.to_q" in message


def test_one_module_the_base_lacks_is_enough_to_refuse(refusal: Callable[..., str]) -> None:
    message = refusal(modules=(*MODULES, "transformer_blocks.9.attn.to_q"))
    assert "1 of 3 modules" in message
    assert "transformer_blocks.9.attn.to_q" in message


@pytest.mark.parametrize(
    "name",
    [
        "lora_unet_double_blocks_0_img_attn_proj.lora_down.weight",
        f"transformer.{MODULES[0]}.lora_down.weight",
        f"diffusion_model.{MODULES[0]}.lora_magnitude_vector",
        f"transformer.{MODULES[0]}.dora_scale",
        f"transformer.{MODULES[0]}.lora_A.bias",
        f"transformer.{MODULES[0]}.lora_A.default.weight",
        f"{MODULES[0]}.lora_A.weight",  # the same module a second time, without the prefix
        "transformer.elsewhere.alpha",
        "anything",
    ],
)
def test_a_tensor_that_nobody_would_load_is_refused_by_name(
    refusal: Callable[..., str], name: str
) -> None:
    message = refusal(change={name: np.ones((2, 6), np.float32)})
    assert "would be ignored" in message
    assert name in message or A in message


@pytest.mark.parametrize("half", [A, B])
def test_half_a_pair_is_refused(refusal: Callable[..., str], half: str) -> None:
    message = refusal(change={half: None})
    assert "only one half" in message
    assert MODULES[0] in message


def test_another_rank_than_the_registered_one_is_refused(refusal: Callable[..., str]) -> None:
    message = refusal(rank=3)
    assert "has rank 3, the registry says 2" in message


def test_ranks_that_disagree_within_a_pair_are_refused(refusal: Callable[..., str]) -> None:
    assert "rank 2 (A) and 5 (B)" in refusal(change={B: np.ones((4, 5), np.float32)})


def test_a_layer_of_another_shape_is_refused(refusal: Callable[..., str]) -> None:
    message = refusal(change={A: np.ones((2, 7), np.float32)})
    assert "4x7, the base has 4x6" in message


def test_a_convolution_and_a_norm_are_refused(refusal: Callable[..., str]) -> None:
    assert "not a linear layer" in refusal(change={A: np.ones((2, 6, 1, 1), np.float32)})
    assert "not a linear layer" in refusal(modules=("norm",))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_style_with_a_number_that_is_not_finite_is_refused(
    refusal: Callable[..., str], bad: float
) -> None:
    tensor = np.ones((4, 2), np.float16)
    tensor[1, 1] = bad
    message = refusal(change={B: tensor})
    assert B in message
    assert "NaN or infinite" in message


def test_an_alpha_that_is_no_single_number_is_refused(refusal: Callable[..., str]) -> None:
    alpha = {f"transformer.{MODULES[0]}.alpha": np.ones(2, np.float32)}
    assert "must be one number" in refusal(change=alpha)


def test_a_style_folder_has_one_file_under_the_name_that_is_loaded(
    tmp_path: Path, write_lora: Write
) -> None:
    with pytest.raises(StoreError, match="no safetensors file"):
        lora_file(tmp_path)
    write_lora(tmp_path / "other.safetensors")
    with pytest.raises(StoreError, match=r"holds other\.safetensors"):
        lora_file(tmp_path)
    write_lora(tmp_path / "pytorch_lora_weights.safetensors")
    with pytest.raises(StoreError, match=r"holds other\.safetensors, pytorch_lora"):
        lora_file(tmp_path)
    (tmp_path / "other.safetensors").unlink()
    assert lora_file(tmp_path) == tmp_path / "pytorch_lora_weights.safetensors"
