"""Every key format gives the same style; what cannot be one is refused with the reason."""

from __future__ import annotations

import json
import math
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from iris.errors import StoreError
from iris.store.lora import check_lora
from iris.store.lora_convert import Converted, convert
from iris.store.lora_scaling import Scaling, scaling_of
from iris.store.tensors import TensorInfo
from tests.store.flux2_loras import BASE, FORMATS, RANK, Tensors, expected

PLAIN = Scaling()
WEIGHTS = {f"{module}.weight": TensorInfo("F32", shape, 0, 0) for module, shape in BASE.items()}


@pytest.fixture
def brought(tmp_path: Path) -> Callable[..., Converted]:
    """brought(tensors) -> what convert says; the result is at tmp_path / "out.safetensors"."""

    def bring(
        tensors: Tensors, scaling: Scaling = PLAIN, metadata: dict[str, str] | None = None
    ) -> Converted:
        save_file(
            {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()},
            tmp_path / "in.safetensors",
            metadata,
        )
        source, target = tmp_path / "in.safetensors", tmp_path / "out.safetensors"
        found = convert(source, target, WEIGHTS, scaling)
        assert check_lora(target, rank=found.rank, base_weights=WEIGHTS) == found.num_modules
        return found

    return bring


def added(folder: Path) -> dict[str, Any]:
    """Module -> what the stored style adds to its weight."""
    path = folder / "out.safetensors"
    tensors = load_file(path)
    with safe_open(path, "np") as file:
        settings = json.loads(file.metadata()["lora_adapter_metadata"])
    found = {}
    for module in BASE:
        key = f"transformer.{module}"
        if f"{key}.lora_A.weight" in tensors:
            down, up = tensors[f"{key}.lora_A.weight"], tensors[f"{key}.lora_B.weight"]
            alpha = settings["transformer.alpha_pattern"].get(
                module, settings["transformer.lora_alpha"]
            )
            found[module] = alpha / len(down) * (up @ down)
    return found


def same(one: dict[str, Any], other: dict[str, Any], times: float = 1.0) -> bool:
    return one.keys() == other.keys() and all(
        np.allclose(one[module], times * other[module], atol=1e-5) for module in one
    )


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_the_same_style(name: str, brought: Any, tmp_path: Path) -> None:
    found = brought(FORMATS[name]())
    assert found == Converted(RANK, len(BASE))
    assert same(added(tmp_path), expected())


@pytest.mark.parametrize("name", ["kohya", "comfyui", "diffusers"])
@pytest.mark.parametrize("shape", [(), (1,)])
def test_an_alpha_scales_its_layer(
    name: str, shape: tuple[int, ...], brought: Any, tmp_path: Path
) -> None:
    tensors = FORMATS[name]()
    layers = {key.rpartition(".lora_")[0] for key in tensors}
    alphas = {f"{layer}.alpha": np.full(shape, 1.0, np.float32) for layer in layers}
    brought(tensors | alphas)
    assert same(added(tmp_path), expected(), 1 / RANK)


def test_layers_may_have_alphas_and_ranks_of_their_own(brought: Any, tmp_path: Path) -> None:
    tensors = FORMATS["comfyui"]()
    key = "diffusion_model.single_blocks.0.linear2"
    down, up = tensors[f"{key}.lora_A.weight"], tensors[f"{key}.lora_B.weight"]
    tensors |= {f"{key}.lora_A.weight": down[:2], f"{key}.lora_B.weight": up[:, :2]}
    tensors[f"{key}.alpha"] = np.array(1.0, np.float32)
    assert brought(tensors).rank == RANK
    module = "single_transformer_blocks.0.attn.to_out"
    wanted = expected() | {module: 0.5 * up[:, :2] @ down[:2]}
    assert same(added(tmp_path), wanted)


@pytest.mark.parametrize(
    ("scaling", "times"),
    [
        (Scaling(alpha=8.0), 8 / RANK),
        (Scaling(alpha=8.0, by_root=True), 8 / math.sqrt(RANK)),
        (Scaling(), 1.0),
    ],
)
def test_pefts_settings_scale_what_has_no_alpha(
    scaling: Scaling, times: float, brought: Any, tmp_path: Path
) -> None:
    brought(FORMATS["peft"](), scaling)
    assert same(added(tmp_path), expected(), times)


def test_diffusers_metadata_scales_what_has_no_alpha(brought: Any, tmp_path: Path) -> None:
    settings = {
        "transformer.r": RANK,
        "transformer.lora_alpha": 2,
        "transformer.alpha_pattern": {"proj_out": 12},
    }
    brought(FORMATS["diffusers"](), metadata={"lora_adapter_metadata": json.dumps(settings)})
    wanted = {module: 0.5 * value for module, value in expected().items()}
    wanted["proj_out"] = 3.0 * expected()["proj_out"]
    assert same(added(tmp_path), wanted)


@pytest.mark.parametrize(
    ("patterns", "times"),
    [
        ({r"transformer_blocks\.\d+\.attn\.to_q": 12}, {"to_q": 3.0}),
        ({"^transformer_blocks.0.attn.to_q": 12}, {"transformer_blocks.0.attn.to_q": 3.0}),
        ({"attn.to_q": 12, "to_q": 16}, {"to_q": 3.0}),
        ({"to_q": 16, "attn.to_q": 12}, {"to_q": 4.0}),
        ({"q": 12}, {}),
        ({"to_q|to_k": 12}, {"to_q": 3.0, "to_k": 3.0}),
    ],
)
@pytest.mark.parametrize("name", ["peft", "diffusers"])
def test_a_pattern_scales_the_layers_that_peft_would(
    name: str, patterns: dict[str, float], times: dict[str, float], brought: Any, tmp_path: Path
) -> None:
    get_pattern_key = pytest.importorskip("peft.utils.other").get_pattern_key
    brought(FORMATS[name](), scaling_of({"lora_alpha": RANK, "alpha_pattern": patterns}))
    wanted = {}
    for module, change in expected().items():
        factor = next((f for end, f in times.items() if module.endswith(end)), 1.0)
        assert patterns.get(get_pattern_key(patterns, module), RANK) == factor * RANK
        wanted[module] = factor * change
    assert same(added(tmp_path), wanted)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ('{"transformer.lora_alpha": NaN}', "lora_alpha is nan"),
        ('{"transformer.lora_alpha": -Infinity}', "lora_alpha is -inf"),
        ('{"transformer.lora_alpha": 1e400}', "lora_alpha is inf"),
        (f'{{"transformer.lora_alpha": 1{"0" * 400}}}', "lora_alpha is 1000"),
        ('{"transformer.lora_alpha": [1]}', r"lora_alpha is \[1\]"),
        ('{"transformer.lora_alpha": 1e300}', r"is 1e\+300 at rank 4, which is no scale"),
        ('{"transformer.lora_alpha": -40001}', "at rank 4, which is no scale"),
        ('{"transformer.alpha_pattern": {"x": NaN}}', "alpha_pattern of x is nan"),
        ('{"transformer.alpha_pattern": {"x_embedder": 1e300}}', "alpha of .*x_embedder is 1e"),
        ('{"transformer.alpha_pattern": {"(": 1}}', r"has \(, which is not the name of a l"),
        ('{"transformer.alpha_pattern": {"((.|.)*)*!": 1}}', "not the name of a layer"),
        ('{"transformer.alpha_pattern": [1]}', "alpha_pattern is no JSON object"),
        ("[1]", "it is no JSON object"),
        ("{", "not usable"),
    ],
)
def test_settings_that_are_no_scale_are_refused_with_the_reason(
    settings: str, reason: str, brought: Any, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match=reason):
        brought(FORMATS["diffusers"](), metadata={"lora_adapter_metadata": settings})
    assert not (tmp_path / "out.safetensors").exists()


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    save_file(FORMATS["diffusers"](), tmp_path / "in.safetensors")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(StoreError, match=r"out\.safetensors cannot be written.*BENTOML_HOME"):
            convert(tmp_path / "in.safetensors", tmp_path / "out.safetensors", WEIGHTS, PLAIN)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_what_was_brought_can_be_brought_again(brought: Any, tmp_path: Path) -> None:
    brought(FORMATS["kohya"]() | {"lora_unet_img_in.alpha": np.array(1.0, np.float32)})
    once = added(tmp_path)
    again = load_file(tmp_path / "out.safetensors")
    with safe_open(tmp_path / "out.safetensors", "np") as file:
        brought(again, metadata=file.metadata())
    assert same(added(tmp_path), once)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_numbers_keep_their_type(dtype: Any, brought: Any, tmp_path: Path) -> None:
    brought({name: tensor.astype(dtype) for name, tensor in FORMATS["comfyui"]().items()})
    assert {tensor.dtype for tensor in load_file(tmp_path / "out.safetensors").values()} == {
        np.dtype(dtype)
    }


def test_a_convolution_of_one_pixel_is_a_matrix(brought: Any, tmp_path: Path) -> None:
    brought({name: tensor[..., None, None] for name, tensor in FORMATS["kohya"]().items()})
    assert same(added(tmp_path), expected())


def test_part_of_the_layers_is_a_style_too(brought: Any, tmp_path: Path) -> None:
    tensors = {k: v for k, v in FORMATS["comfyui"]().items() if "img_attn.qkv" in k}
    assert brought(tensors).num_modules == 6
    assert all("attn.to_" in module for module in added(tmp_path))


KOHYA, COMFY = FORMATS["kohya"], FORMATS["comfyui"]
FIRST = "diffusion_model.single_blocks.0.linear2"
REFUSED: dict[str, tuple[Callable[[], Tensors], str]] = {
    "LoKr": (lambda: {f"{FIRST}.lokr_w1": np.ones((2, 2))}, "LoKr"),
    "LoHa": (lambda: {f"{FIRST}.hada_w1_a": np.ones((2, 2))}, "LoHa"),
    "DoRA": (lambda: COMFY() | {f"{FIRST}.dora_scale": np.ones((8, 1))}, "DoRA"),
    "DoRA of PEFT": (
        lambda: COMFY() | {f"{FIRST}.lora_magnitude_vector.weight": np.ones(8)},
        "DoRA",
    ),
    "Tucker": (lambda: COMFY() | {f"{FIRST}.lora_mid.weight": np.ones((4, 4))}, "Tucker"),
    "bias": (lambda: COMFY() | {f"{FIRST}.lora_B.bias": np.ones(8)}, "biases"),
    "whole weights": (lambda: COMFY() | {f"{FIRST}.diff": np.ones((8, 8))}, "whole weights"),
    "text encoder": (
        lambda: (
            KOHYA()
            | {
                "lora_te_layers_0_mlp.lora_down.weight": np.ones((4, 8), np.float32),
                "lora_te_layers_0_mlp.lora_up.weight": np.ones((8, 4), np.float32),
            }
        ),
        "text encoder",
    ),
    "half a pair": (
        lambda: {k: v for k, v in COMFY().items() if k != f"{FIRST}.lora_B.weight"},
        "only one half",
    ),
    "an alpha alone": (lambda: {f"{FIRST}.alpha": np.ones(1)}, "only one half"),
    "something else": (lambda: COMFY() | {"step": np.ones(1)}, "no part of a LoRA"),
    "two ranks": (
        lambda: COMFY() | {f"{FIRST}.lora_A.weight": np.ones((3, 28), np.float32)},
        "rank 3 in its down and 4 in its up",
    ),
    "a rank too high": (
        lambda: (
            COMFY()
            | {
                f"{FIRST}.lora_A.weight": np.ones((2048, 28), np.float32),
                f"{FIRST}.lora_B.weight": np.ones((8, 2048), np.float32),
            }
        ),
        "rank 2048; at most 1024",
    ),
    "another width": (
        lambda: COMFY() | {f"{FIRST}.lora_A.weight": np.ones((4, 29), np.float32)},
        "made for another base: .* is 8x28 here and 8x29",
    ),
    "more blocks": (
        lambda: {k.replace("single_blocks.1", "single_blocks.7"): v for k, v in COMFY().items()},
        "made for another base: 2 of its .* layers are not in this one",
    ),
    "FLUX.1": (
        lambda: (
            COMFY()
            | {
                "transformer.single_transformer_blocks.0.proj_mlp.lora_A.weight": np.ones((4, 8)),
                "transformer.single_transformer_blocks.0.proj_mlp.lora_B.weight": np.ones((8, 4)),
            }
        ),
        r"FLUX\.1",
    ),
    "Stable Diffusion": (
        lambda: {
            "lora_unet_down_blocks_0_attn.lora_down.weight": np.ones((4, 8), np.float32),
            "lora_unet_down_blocks_0_attn.lora_up.weight": np.ones((8, 4), np.float32),
        },
        "Stable Diffusion",
    ),
    "a layer twice": (
        lambda: COMFY() | {k: v for k, v in FORMATS["diffusers"]().items() if "x_embedder" in k},
        "two LoRAs for x_embedder",
    ),
    "two adapters": (
        lambda: FORMATS["peft"]() | FORMATS["peft, adapter named"](),
        "one is too many",
    ),
    "NaN": (
        lambda: COMFY() | {f"{FIRST}.lora_B.weight": np.full((8, 4), np.nan, np.float32)},
        "NaN or infinite",
    ),
    "infinite": (
        lambda: COMFY() | {f"{FIRST}.lora_A.weight": np.full((4, 28), np.inf, np.float16)},
        "NaN or infinite",
    ),
    "an alpha that is none": (
        lambda: COMFY() | {f"{FIRST}.alpha": np.array(np.nan, np.float32)},
        "is nan",
    ),
    "an alpha far too large": (
        lambda: COMFY() | {f"{FIRST}.alpha": np.array(1e9, np.float32)},
        r"is 1e\+09 at rank 4, which is no scale",
    ),
    "an alpha of two": (lambda: COMFY() | {f"{FIRST}.alpha": np.ones(2)}, "one number"),
    "whole numbers": (
        lambda: COMFY() | {f"{FIRST}.lora_A.weight": np.ones((4, 28), np.int8)},
        "I8 numbers",
    ),
    "a convolution": (
        lambda: COMFY() | {f"{FIRST}.lora_A.weight": np.ones((4, 28, 3, 3), np.float32)},
        "no matrix",
    ),
    "never trained": (
        lambda: {k: v if "lora_A" in k else np.zeros_like(v) for k, v in COMFY().items()},
        "never trained",
    ),
    "nothing": (lambda: {}, "no tensor"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_a_style_is_refused_with_the_reason(
    name: str, brought: Any, tmp_path: Path
) -> None:
    make, reason = REFUSED[name]
    with pytest.raises(StoreError, match=reason):
        brought(make())
    assert not (tmp_path / "out.safetensors").exists()


EVIL = "\x1b[2J\x1b]0;x\x07\N{RIGHT-TO-LEFT OVERRIDE}" + "x" * 200
DOWN, UP = f"{FIRST}.lora_A.{EVIL}.weight", f"{FIRST}.lora_B.{EVIL}.weight"  # an adapter's name
NAMED: dict[str, Tensors] = {
    "no part": {EVIL: np.ones(1)},
    "half": {f"{EVIL}.lora_A.weight": np.ones((4, 28))},
    "is a LoKr": {f"{EVIL}.lokr_w1": np.ones((2, 2))},
    "layers are not in": {
        f"{EVIL}.lora_A.weight": np.ones((4, 28)),
        f"{EVIL}.lora_B.weight": np.ones((8, 4)),
    },
    "too many": {DOWN: np.ones((4, 28)), f"{FIRST}.lora_A.weight": np.ones((4, 28))},
    "I8 numbers": {DOWN: np.ones((4, 28), np.int8), UP: np.ones((8, 4))},
    "no matrix": {DOWN: np.ones((4, 28, *(2,) * 9)), UP: np.ones((8, 4))},
    "empty": {DOWN: np.ones((0, 28)), UP: np.ones((8, 4))},
    "NaN": {DOWN: np.ones((4, 28)), UP: np.full((8, 4), np.nan)},
    "301 characters": {"x" * 301: np.ones(1)},
}


@pytest.mark.parametrize("reason", NAMED)
def test_no_name_of_a_file_reaches_the_terminal_as_it_is(
    reason: str, brought: Any, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match=reason) as caught:
        brought(NAMED[reason])
    message = caught.value.message
    assert message.isascii()
    assert message.isprintable()
    assert message.count("x" * 70) < 3
    assert "x" * 101 not in message
    assert "..." in message


def test_the_name_of_a_pattern_does_not_either(brought: Any) -> None:
    for value in (1, math.nan, EVIL):
        settings = json.dumps({"transformer.alpha_pattern": {f"x{'y' * 200}": value, EVIL: 1}})
        with pytest.raises(StoreError, match="cannot be scaled") as caught:
            brought(FORMATS["diffusers"](), metadata={"lora_adapter_metadata": settings})
        assert caught.value.message.isascii()
        assert caught.value.message.isprintable()
        assert len(caught.value.message) < 600


def test_a_name_of_prefixes_without_end_is_refused_at_once(brought: Any) -> None:
    """Each was taken off by a copy of the rest."""
    layer = "model." * 300_000 + "x_embedder"
    with pytest.raises(StoreError, match="has 1800024 characters, at most 300"):
        brought({f"{layer}.lora_A.weight": np.ones((4, 8)), f"{layer}.lora_B.weight": np.ones(8)})


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"PK\x03\x04" + bytes(100), "pickle, which can run code"),
        (b"\x80\x02}q\x00." + bytes(100), "pickle, which can run code"),
        (b"", "not a whole safetensors"),
        (b"GIF89a" + bytes(100), "not a whole safetensors"),
        ((5 << 20).to_bytes(8, "little") + bytes((5 << 20) + 10), "header of 5242880 bytes"),
        ((2**63).to_bytes(8, "little") + bytes(100), "not a whole safetensors"),
        ((100).to_bytes(8, "little") + b"[" * 100, "no readable safetensors header"),
    ],
)
def test_a_hostile_file_is_refused_unread(content: bytes, reason: str, tmp_path: Path) -> None:
    source = tmp_path / "in.safetensors"
    source.write_bytes(content)
    with pytest.raises(StoreError, match=reason):
        convert(source, tmp_path / "out.safetensors", WEIGHTS, Scaling())


def test_a_file_far_too_large_is_refused_unread(tmp_path: Path) -> None:
    source = tmp_path / "in.safetensors"
    with source.open("wb") as file:
        file.truncate(5 << 30)  # takes no room on the disk
    with pytest.raises(StoreError, match="whole model is added with"):
        convert(source, tmp_path / "out.safetensors", WEIGHTS, Scaling())
