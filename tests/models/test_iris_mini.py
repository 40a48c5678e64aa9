"""What the embedded model promises: it loads, it draws, and its recipe makes it."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from diffusers import Flux2KleinPipeline
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import AutoTokenizer

STYLES = ("dark", "anime")
LUMA = np.array([0.299, 0.587, 0.114])
MAX_BYTES = 4 * 1024 * 1024


def draw(
    pipeline: Flux2KleinPipeline, prompt: str, seed: int = 1, side: int = 128, steps: int = 2
) -> np.ndarray:
    """(side, side, 3), 0..1."""
    numbers = json.loads((Path(pipeline.config._name_or_path) / "iris.json").read_text())
    return pipeline(
        prompt=prompt,
        height=side,
        width=side,
        num_inference_steps=steps,
        guidance_scale=1.0,
        generator=torch.Generator().manual_seed(seed),
        max_sequence_length=numbers["max_sequence_length"],
        text_encoder_out_layers=tuple(numbers["text_encoder_out_layers"]),
        output_type="np",
    ).images[0]


def header(path: Path) -> bytes:
    """Names, shapes and metadata of a safetensors file, in the order in which they lie there."""
    with path.open("rb") as file:
        return file.read(int.from_bytes(file.read(8), "little"))


def reconstruct(pipeline: Flux2KleinPipeline, picture: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        latents = pipeline.vae.encode(picture).latent_dist.mode()
        return pipeline.vae.decode(latents).sample


def gradients(side: int) -> torch.Tensor:
    """(1, 3, side, side): across, down and diagonal, within -0.9..0.9."""
    axis = torch.linspace(-0.9, 0.9, side)
    across, down = axis.expand(side, side), axis[:, None].expand(side, side)
    return torch.stack([across, down, (across - down) / 2])[None]


@pytest.mark.parametrize("side", [64, 128])
def test_a_picture_has_the_asked_size_and_is_neither_flat_nor_static(
    pipeline: Flux2KleinPipeline, side: int
) -> None:
    picture = draw(pipeline, "a red cat", side=side, steps=4)
    assert picture.shape == (side, side, 3)
    assert np.isfinite(picture).all()
    assert picture.std() > 0.02
    neighbours = np.abs(np.diff(picture, axis=0)).mean()
    assert neighbours < 0.02, "a soft field changes little from one row to the next"


def test_another_prompt_and_another_seed_are_other_pictures(
    pipeline: Flux2KleinPipeline,
) -> None:
    picture = draw(pipeline, "a red cat")
    assert np.abs(picture - draw(pipeline, "sunset over the sea, cinematic")).mean() > 0.03
    assert np.abs(picture - draw(pipeline, "a red cat", seed=2)).mean() > 0.03
    assert np.array_equal(picture, draw(pipeline, "a red cat"))


@pytest.mark.parametrize("steps", [1, 12])
def test_any_number_of_steps_removes_the_noise(pipeline: Flux2KleinPipeline, steps: int) -> None:
    picture = draw(pipeline, "a blue circle", steps=steps)
    assert np.abs(np.diff(picture, axis=1)).mean() < 0.02


def test_gradients_come_back_from_the_autoencoder(pipeline: Flux2KleinPipeline) -> None:
    picture = gradients(256)
    error = (reconstruct(pipeline, picture) - picture).abs()
    assert float(error[..., 32:-32, 32:-32].max()) < 1e-3
    assert float(error.max()) < 0.06


@pytest.mark.parametrize("level", [-1.0, -0.3, 0.0, 1.0])
@pytest.mark.parametrize("size", [(32, 32), (96, 256)])
def test_a_flat_picture_stays_flat_up_to_its_border(
    pipeline: Flux2KleinPipeline, level: float, size: tuple[int, int]
) -> None:
    picture = torch.full((1, 3, *size), level)
    assert float((reconstruct(pipeline, picture) - picture).abs().max()) < 0.004


def test_latents_of_usual_pictures_are_near_unit_size(
    pipeline: Flux2KleinPipeline, recipe: ModuleType
) -> None:
    from iris_mini.scenes import typical_pictures

    pictures = typical_pictures(128)
    with torch.no_grad():
        latents = pipeline._encode_vae_image(pictures, torch.Generator())
    used = latents[:, : 4 * 5]
    assert float(used.mean().abs()) < 0.1
    assert torch.allclose(used.std(dim=(0, 2, 3)), torch.ones(20), atol=0.25)


@pytest.mark.parametrize("style", STYLES)
def test_a_style_adapts_every_block_and_changes_the_picture(
    pipeline: Flux2KleinPipeline, model: Path, style: str
) -> None:
    plain = draw(pipeline, "a house by the sea")
    pipeline.load_lora_weights(model / "styles" / style, use_safetensors=True, adapter_name=style)
    try:
        adapted = [
            name
            for name, module in pipeline.transformer.named_modules()
            if style in getattr(module, "lora_B", {})
        ]
        changes, lumas = [], [float((plain @ LUMA).mean())]
        for strength in (0.3, 0.6, 1.0, 1.5):
            pipeline.set_adapters(style, strength)
            picture = draw(pipeline, "a house by the sea")
            changes.append(float(np.abs(picture - plain).mean()))
            lumas.append(float((picture @ LUMA).mean()))
    finally:
        pipeline.unload_lora_weights()

    blocks = pipeline.transformer.transformer_blocks
    singles = pipeline.transformer.single_transformer_blocks
    assert len(adapted) == 12 * len(blocks) + 2 * len(singles)
    assert changes == sorted(changes)
    assert changes[2] > 0.04
    assert lumas == sorted(lumas, reverse=style == "dark")
    assert np.array_equal(plain, draw(pipeline, "a house by the sea")), "nothing of it stays behind"


@pytest.mark.parametrize("style", STYLES)
def test_a_style_file_says_its_rank_and_has_no_empty_layer(model: Path, style: str) -> None:
    weights = load_file(model / "styles" / style / "pytorch_lora_weights.safetensors")
    for key, weight in weights.items():
        assert 8 in weight.shape, key
        assert weight.abs().max() > 0, key


def test_the_repository_holds_what_the_recipe_builds(
    recipe: ModuleType, model: Path, tmp_path: Path
) -> None:
    recipe.build(tmp_path / "weights", recipe.MiniConfig(), recipe.SEED)
    for style in recipe.STYLES:
        recipe.build_style(
            tmp_path / "styles" / style, tmp_path / "weights", style, recipe.RANK, recipe.SEED
        )
    stored = sorted(
        path.relative_to(model)
        for folder in ("weights", "styles")
        for path in (model / folder).glob("**/*")
        if path.is_file()
    )
    built = sorted(path.relative_to(tmp_path) for path in tmp_path.glob("**/*") if path.is_file())
    assert built == stored
    for path in stored:
        if path.suffix != ".safetensors":
            assert (tmp_path / path).read_bytes() == (model / path).read_bytes(), path
            continue
        assert header(tmp_path / path) == header(model / path), path
        ours, theirs = load_file(tmp_path / path), load_file(model / path)
        assert ours.keys() == theirs.keys()
        for key, weight in theirs.items():
            # another CPU may round a fitted weight to the next bf16 number
            slack = 0.01 * float(weight.abs().max())
            torch.testing.assert_close(
                ours[key], weight, rtol=0.01, atol=slack, msg=f"{path} {key}"
            )


def test_a_second_build_gives_the_same_bytes(recipe: ModuleType, tmp_path: Path) -> None:
    for name in ("first", "second"):
        recipe.build(tmp_path / name, recipe.MiniConfig(), 3)
        recipe.build_style(tmp_path / name / "style", tmp_path / name, "dark", 4, 3)
    for path in (tmp_path / "first").glob("**/*"):
        if path.is_file():
            twin = tmp_path / "second" / path.relative_to(tmp_path / "first")
            assert path.read_bytes() == twin.read_bytes(), path.name


def test_the_recipe_also_builds_sixteen_pixels_a_token(recipe: ModuleType, tmp_path: Path) -> None:
    config = recipe.MiniConfig(name="other", vae_widths=(8, 8, 16, 32))
    recipe.build(tmp_path, config, 5)
    numbers = json.loads((tmp_path / "iris.json").read_text())
    assert numbers["pixels_per_token"] == 16
    assert numbers["name"] == "other"
    pipeline = Flux2KleinPipeline.from_pretrained(
        tmp_path, dtype=torch.float32, use_safetensors=True
    )
    pipeline.set_progress_bar_config(disable=True)
    assert draw(pipeline, "a tree", side=80).shape == (80, 80, 3)
    picture = gradients(128)
    inside = (reconstruct(pipeline, picture) - picture)[..., 32:-32, 32:-32]
    assert float(inside.abs().max()) < 1e-3


def test_sizes_that_cannot_work_are_refused(recipe: ModuleType) -> None:
    for wrong in (
        {"vae_widths": (8, 8, 12, 16)},
        {"vae_widths": (8, 8, 8, 8)},
        {"latent_channels": 3},
        {"dit_heads": 2},
        {"dit_axes": (8, 8, 8, 7)},
        {"text_out_layers": (1, 5)},
    ):
        with pytest.raises(ValueError, match="|".join((*wrong, "heads"))):
            recipe.MiniConfig(**wrong)


def test_the_model_carries_its_own_numbers(pipeline: Flux2KleinPipeline, model: Path) -> None:
    numbers = json.loads((model / "weights" / "iris.json").read_text())
    levels = len(pipeline.vae.config.block_out_channels)
    assert numbers["name"] == "iris-mini"
    assert numbers["pixels_per_token"] == 2 * 2 ** (levels - 1) == 32
    layers = numbers["text_encoder_out_layers"]
    assert max(layers) <= pipeline.text_encoder.config.num_hidden_layers
    joint = len(layers) * pipeline.text_encoder.config.hidden_size
    assert pipeline.transformer.config.joint_attention_dim == joint
    assert pipeline.transformer.config.in_channels == 4 * pipeline.vae.config.latent_channels


def test_the_model_is_small_and_holds_safetensors_only(model: Path) -> None:
    files = [
        path
        for folder in ("weights", "styles")
        for path in (model / folder).glob("**/*")
        if path.is_file()
    ]
    assert {path.suffix for path in files} <= {".safetensors", ".json", ".jinja"}
    assert sum(path.stat().st_size for path in files) <= MAX_BYTES


def test_the_chat_template_keeps_the_text_and_ends_where_the_reply_begins(
    pipeline: Flux2KleinPipeline,
) -> None:
    text = "  seekor kucing {merah}\n<b>di</b> 'meja' \\n {{ 7*7 }} "
    turn = [{"role": "user", "content": text}]
    render = pipeline.tokenizer.apply_chat_template
    bare = f"<|im_start|>user\n{text}<|im_end|>\n"
    assert render(turn, tokenize=False) == bare
    asked = render(turn, tokenize=False, add_generation_prompt=True)
    assert asked == bare + "<|im_start|>assistant\n"
    quiet = render(turn, tokenize=False, add_generation_prompt=True, enable_thinking=False)
    assert quiet == asked + "<think>\n\n</think>\n\n"


def test_padding_is_on_the_right_and_masked(pipeline: Flux2KleinPipeline) -> None:
    tokens = pipeline.tokenizer("a cat", padding="max_length", max_length=16, truncation=True)
    real = sum(tokens["attention_mask"])
    assert 0 < real < 16
    assert tokens["attention_mask"] == [1] * real + [0] * (16 - real)
    assert set(tokens["input_ids"][real:]) == {pipeline.tokenizer.pad_token_id}


def test_usual_words_are_short(pipeline: Flux2KleinPipeline) -> None:
    for text in ("a red cat on the table", "seekor kucing hitam di atas meja"):
        assert len(pipeline.tokenizer(text)["input_ids"]) <= len(text) // 2


TOKENIZER = AutoTokenizer.from_pretrained(
    Path(__file__).resolve().parents[2] / "models/iris-mini/weights/tokenizer"
)


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_any_unicode_survives_the_tokenizer(text: str) -> None:
    normal = TOKENIZER.backend_tokenizer.normalizer.normalize_str(text)
    tokens = TOKENIZER(text)["input_ids"]
    assert max(tokens, default=0) < len(TOKENIZER)
    assert TOKENIZER.decode(tokens, clean_up_tokenization_spaces=False) == normal
