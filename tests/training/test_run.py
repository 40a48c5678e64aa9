"""A style is learnt from pictures, goes on where it stopped, and paints what it learnt."""

from __future__ import annotations

import errno
import json
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from iris.errors import ConfigError, StoreError
from iris.images.fit import Exact
from iris.images.prescan import prescan
from iris.images.raster import render
from iris.training.pictures import find_examples, read_pixels
from iris.training.run import Recipe, _Run, train
from tests.engine.conftest import folders, one_thread  # noqa: F401
from tests.images.conftest import Files

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
def test_a_run_that_was_broken_off_ends_as_one_that_was_not(run, recipe, monkeypatch, tmp_path):
    whole = load_file(run(recipe, "whole") / "pytorch_lora_weights.safetensors")
    step = _Run._step

    def breaks_off(self):
        if self._steps == 4:  # one after the last that was sampled
            raise KeyboardInterrupt
        return step(self)

    monkeypatch.setattr(_Run, "_step", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        run(recipe, "broken")
    assert torch.load(tmp_path / "broken" / "state.pt", weights_only=True)["steps"] == 4
    monkeypatch.undo()
    again = load_file(run(recipe, "broken") / "pytorch_lora_weights.safetensors")
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    assert any(float(value.abs().max()) > 0 for key, value in whole.items() if "lora_B" in key)


@QUIET
@pytest.mark.parametrize("sample_every", [0, 5])
def test_a_run_saves_by_itself_whatever_it_samples(run, recipe, monkeypatch, sample_every):
    monkeypatch.setattr("iris.training.run._SAVE_EVERY", 2)
    saved = []
    monkeypatch.setattr(_Run, "_save", lambda self: saved.append(self._steps))
    monkeypatch.setattr(_Run, "_sample", lambda self: None)
    run(replace(recipe, sample_every=sample_every))
    assert saved == sorted({2, 4, 6} | ({5} if sample_every else set()))


@QUIET
def test_a_step_that_is_half_taken_is_not_saved(run, recipe, tmp_path, monkeypatch):
    step = torch.optim.AdamW.step

    def breaks_off(self):
        step(self)
        raise KeyboardInterrupt  # and the steps have not been counted

    monkeypatch.setattr(torch.optim.AdamW, "step", breaks_off)
    with pytest.raises(KeyboardInterrupt):
        run(recipe)
    assert not (tmp_path / "run" / "state.pt").exists()


@QUIET
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_is_told_to_end_saves_its_state(run, recipe, tmp_path, monkeypatch, number):
    step, told = _Run._step, []

    def is_told(self):
        loss = step(self)
        if self._steps == 4:
            signal.raise_signal(number)
        return loss

    def before(*_):
        told.append(number)

    monkeypatch.setattr(_Run, "_step", is_told)
    save = _Run._save

    def is_told_again(self):
        if self._steps == 4:
            signal.raise_signal(number)
        save(self)

    monkeypatch.setattr(_Run, "_save", is_told_again)
    others = signal.signal(number, before)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(recipe)
        assert told == []
        signal.raise_signal(number)
        assert told == [number]  # who took it before takes it again
    finally:
        signal.signal(number, others)
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["steps"] == 4


@QUIET
def test_a_run_under_nohup_outlives_its_terminal(run, recipe, tmp_path, monkeypatch):
    step = _Run._step

    def hangs_up(self):
        signal.raise_signal(signal.SIGHUP)
        return step(self)

    monkeypatch.setattr(_Run, "_step", hangs_up)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run(replace(recipe, steps=2, sample_every=0))
    finally:
        signal.signal(signal.SIGHUP, before)
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["steps"] == 2


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory"),
]


@QUIET
@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_too_little_memory_keeps_what_was_learnt(run, recipe, tmp_path, monkeypatch, error):
    step = _Run._step

    def at(steps):
        def fail(self):
            if self._steps == steps:
                raise error
            return step(self)

        return fail

    monkeypatch.setattr(_Run, "_step", at(0))
    with pytest.raises(
        StoreError, match=r"train on tiny:1\. Use a smaller --size or --rank, or fr"
    ):
        run(recipe)
    assert not (tmp_path / "run" / "state.pt").exists()
    monkeypatch.setattr(_Run, "_step", at(4))
    with pytest.raises(StoreError, match=r"is kept: free .* from step 4\. Or begin .*--fresh"):
        run(replace(recipe, rank=2))  # of the first try nothing was left that forbids it
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["steps"] == 4


@QUIET
@pytest.mark.parametrize("part", ["load_components", "prepare"])
@pytest.mark.parametrize("error", OUT_OF_MEMORY)
def test_too_little_memory_to_begin_is_told(run, recipe, monkeypatch, part, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(f"iris.training.run.{part}", fail)
    with pytest.raises(
        StoreError, match=r"does not suffice .*Use a smaller --size or --rank, or f"
    ):
        run(recipe)
    monkeypatch.undo()
    recipe = replace(recipe, steps=1, sample_every=0)
    run(recipe)
    monkeypatch.setattr(f"iris.training.run.{part}", fail)
    with pytest.raises(StoreError, match=r"is kept: free .* from what was saved last\. Or begin"):
        run(recipe)


@QUIET
def test_what_else_breaks_in_a_run_is_not_called_memory(run, recipe, monkeypatch):
    def fail(self):
        raise RuntimeError("something else")

    monkeypatch.setattr(_Run, "_step", fail)
    with pytest.raises(RuntimeError, match="something else"):
        run(recipe)


@QUIET
def test_what_cannot_be_gone_on_from_is_named(run, recipe, tmp_path):
    recipe = replace(recipe, steps=1, sample_every=0)
    run(recipe)
    state, written = tmp_path / "run" / "state.pt", tmp_path / "run" / "recipe.json"
    before = state.read_bytes()
    for content in (before[: len(before) // 2], b"", b"no zip"):
        state.write_bytes(content)
        with pytest.raises(StoreError, match=r"state\.pt cannot be read .*Delete it to begin anew"):
            run(recipe)
    state.write_bytes(before)
    for content in (b"", b"1", b"\xff"):
        written.write_bytes(content)
        with pytest.raises(StoreError, match=r"recipe\.json cannot be read.*Delete it .*--fresh"):
            run(recipe)
    written.unlink()
    run(recipe)
    assert json.loads(written.read_text())["rank"] == recipe.rank


@QUIET
def test_a_full_disk_is_told_and_leaves_what_was_saved(run, recipe, tmp_path, monkeypatch):
    recipe = replace(recipe, steps=1, sample_every=0)
    run(recipe)
    before = (tmp_path / "run" / "state.pt").read_bytes()
    for error in (OSError(errno.ENOSPC, "No space left on device"), RuntimeError("file write")):

        def refuse(state, file, error=error):
            file.write(b"the first of it")
            raise error

        monkeypatch.setattr(torch, "save", refuse)
        with pytest.raises(StoreError, match=r"state\.pt cannot be written .*Make room"):
            run(replace(recipe, steps=2))
        assert (tmp_path / "run" / "state.pt").read_bytes() == before
    monkeypatch.undo()

    def fill(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("iris.training.adapter.Flux2KleinPipeline.save_lora_weights", fill)
    with pytest.raises(StoreError, match=r"safetensors cannot be written .*No space left"):
        run(recipe)
    monkeypatch.setattr(Image.Image, "save", fill)
    with pytest.raises(StoreError, match=r"step-000002\.png cannot be written .No space left"):
        run(replace(recipe, steps=2, sample_every=2))


def test_what_cannot_be_learnt_with_is_told_at_once(run, recipe, tmp_path, folders):  # noqa: F811
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file/run cannot be written .*IRIS_HOME"):
        run(recipe, "file/run")
    with pytest.raises(ConfigError, match="--size 4 must be at least 16"):
        run(replace(recipe, side_px=4))
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="IRIS_DEVICE=cuda, and torch finds no GPU"):
            train(
                recipe,
                folders["fine"] / "weights",
                tmp_path / "run",
                lambda line: None,
                device="cuda",
                dtype="auto",
                threads=1,
            )


@QUIET
@pytest.mark.parametrize("seed", [99_999_999_999_999_999, 2**63 - 1])
def test_every_seed_of_a_request_is_one_of_a_training(run, recipe, seed):
    run(replace(recipe, steps=1, seed=seed, sample_every=1))


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
    for name in ("nowhere", "long" * 100):
        with pytest.raises(StoreError, match="is not a folder that can be read"):
            find_examples(tmp_path / name, None, "gloom")


def test_captions_that_cannot_be_read_are_named(pictures, tmp_path):
    (pictures / "1.txt").write_bytes("caf\xe9".encode("latin-1"))
    with pytest.raises(StoreError, match=r"1\.txt is no text in UTF-8"):
        find_examples(pictures, None, "gloom")
    with pytest.raises(StoreError, match=r"nowhere\.jsonl cannot be read \(No such file"):
        find_examples(pictures, tmp_path / "nowhere.jsonl", "gloom")


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
    file = tmp_path / "a.png"
    Image.new("RGB", (64, 64)).save(file)
    whole = file.read_bytes()
    for content, says in (
        (b"no picture", "is not a PNG"),
        (whole[:-20], "is a truncated PNG"),
        (whole.replace(b"IDAT", b"IDBT"), "is a corrupt PNG file"),
    ):
        file.write_bytes(content)
        with pytest.raises(StoreError, match=rf"a\.png {says}"):
            read_pixels(file, 64, 16)
    Image.new("RGB", (400, 40)).save(file)
    with pytest.raises(StoreError, match=r"a\.png is 400x40 px, too long for --size 32\. .*larger"):
        read_pixels(file, 32, 16)
    Image.new("RGB", (64, 12)).save(file)
    with pytest.raises(StoreError, match=r"a\.png is too small: 64x12 px"):
        read_pixels(file, 64, 16)
    with pytest.raises(StoreError, match=r"a\.png/b\.png cannot be read \(Not a directory"):
        read_pixels(file / "b.png", 64, 16)


def test_the_pixels_that_are_learnt_are_those_that_the_service_reads(tmp_path):
    transparent = np.zeros((64, 64, 4), np.uint8)
    transparent[16:48, 16:48] = (255, 0, 0, 255)
    pictures = {
        "transparent": (Image.fromarray(transparent), None),
        "16-bit": (Image.fromarray(np.full((64, 64), 20_000, np.uint16)), None),
        "profile": (Image.new("RGB", (64, 64), (200, 30, 40)), Files().profile()),
    }
    for name, (image, profile) in pictures.items():
        file = tmp_path / f"{name}.png"
        image.save(file, icc_profile=profile)
        learnt = read_pixels(file, 64, 16)
        assert learnt == render(prescan(file.read_bytes()), Exact(64, 64))
        with Image.open(file) as opened:
            assert learnt.rgb != opened.convert("RGB").tobytes()


def test_a_picture_is_cut_and_not_squeezed(tmp_path):
    """A square stays one: 16 of the height are cut off, half at either end."""
    stripes = np.zeros((80, 64, 3), np.uint8)
    stripes[8:72] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    assert set(read_pixels(tmp_path / "a.png", 80, 64).rgb) == {255}
