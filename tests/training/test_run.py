"""A style is learnt from pictures, goes on where it stopped, and paints what it learnt."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from iris.errors import ConfigError, StoreError
from iris.training.pictures import find_examples, read_pixels
from iris.training.run import Recipe, _Run, train
from tests.engine.conftest import folders, one_thread  # noqa: F401

QUIET = pytest.mark.filterwarnings("ignore:Already found a .peft_config. attribute")


@pytest.fixture
def pictures(tmp_path):
    """Three dark pictures and what is said of them."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(3):
        image = Image.linear_gradient("L").resize((96, 80)).point(lambda v: v // 5)
        Image.merge("RGB", (image,) * 3).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"a red boat, number {number}")
    return folder


@pytest.fixture
def recipe(pictures):
    return Recipe(
        base="tiny:1",
        images=pictures,
        captions=None,
        trigger="gloom",
        rank=4,
        steps=6,
        rate=5e-3,
        batch=1,
        side_px=64,
        seed=1,
        sample_every=3,
        sample_steps=2,
    )


@pytest.fixture
def run(folders, tmp_path):  # noqa: F811
    def go(recipe, name="run"):
        return train(
            recipe,
            folders["fine"] / "weights",
            tmp_path / name,
            lambda line: None,
            device="cpu",
            dtype="auto",
            threads=1,
        )

    return go


@QUIET
def test_a_run_that_was_broken_off_ends_as_one_that_was_not(run, recipe, monkeypatch):
    whole = load_file(run(recipe, "whole") / "pytorch_lora_weights.safetensors")
    step = _Run._step

    def breaks_off(self):
        if self._steps == 4:  # one after the last that was saved
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(_Run, "_step", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, "broken")
    monkeypatch.undo()
    again = load_file(run(recipe, "broken") / "pytorch_lora_weights.safetensors")
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    assert any(float(value.abs().max()) > 0 for key, value in whole.items() if "lora_B" in key)


@QUIET
def test_a_finished_run_takes_no_step_and_samples_are_kept(run, recipe, tmp_path):
    run(recipe)
    names = sorted(path.name for path in (tmp_path / "run" / "samples").iterdir())
    assert names == ["step-000003.png", "step-000006.png"]
    with Image.open(tmp_path / "run" / "samples" / names[0]) as sheet:
        assert sheet.size == (3 * 64, 3 * 64)
    before = load_file(tmp_path / "run" / "style" / "pytorch_lora_weights.safetensors")
    run(recipe)
    after = load_file(tmp_path / "run" / "style" / "pytorch_lora_weights.safetensors")
    assert all(torch.equal(before[key], after[key]) for key in before)


@QUIET
def test_another_recipe_does_not_go_on_from_this_one(run, recipe):
    run(replace(recipe, steps=1, sample_every=0))
    with pytest.raises(ConfigError, match=r"begun with rank=4, not 8.*--fresh"):
        run(replace(recipe, rank=8))


def test_a_caption_stands_beside_its_picture_and_the_trigger_before_it(pictures):
    (pictures / "2.txt").unlink()
    found = find_examples(pictures, None, "gloom")
    assert [example.caption for example in found] == [
        "gloom, a red boat, number 0",
        "gloom, a red boat, number 1",
        "gloom",
    ]


def test_captions_may_stand_in_one_file(pictures, tmp_path):
    file = tmp_path / "captions.jsonl"
    lines = [{"file": f"{n}.png", "text": f"GLOOM {n}"} for n in range(3)]
    file.write_text("\n".join(map(json.dumps, lines)))
    assert [e.caption for e in find_examples(pictures, file, "gloom")] == [
        "GLOOM 0",
        "GLOOM 1",
        "GLOOM 2",
    ]
    file.write_text('{"file": "0.png"}')
    with pytest.raises(StoreError, match="line 1 is not like"):
        find_examples(pictures, file, "gloom")


def test_a_picture_of_which_nothing_is_said_is_named(pictures):
    (pictures / "1.txt").unlink()
    with pytest.raises(StoreError, match=r"Nothing is said of 1\.png in 1\.txt"):
        find_examples(pictures, None, "")


def test_a_folder_without_pictures_is_told(tmp_path):
    with pytest.raises(StoreError, match="holds no picture"):
        find_examples(tmp_path, None, "gloom")
    with pytest.raises(StoreError, match="is not a folder"):
        find_examples(tmp_path / "nowhere", None, "gloom")


@pytest.mark.parametrize(
    ("size", "fitted"), [((200, 100), (80, 32)), ((64, 64), (64, 64)), ((40, 500), (16, 224))]
)
def test_a_picture_keeps_its_aspect_within_the_area(size, fitted, tmp_path):
    file = tmp_path / "a.png"
    Image.new("RGB", size, (200, 0, 0)).save(file)
    pixels = read_pixels(file, 64, 16)
    assert (pixels.width_px, pixels.height_px) == fitted
    assert (np.frombuffer(pixels.rgb, np.uint8).reshape(-1, 3) == (200, 0, 0)).all()


def test_what_is_no_picture_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(StoreError, match=r"a\.png cannot be read as a picture"):
        read_pixels(tmp_path / "a.png", 64, 16)
