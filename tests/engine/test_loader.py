import json
import shutil
import subprocess
import sys

import pytest
import torch

from iris.engine.canvas import Sides
from iris.engine.conditioning import PromptEncoder
from iris.engine.loader import choose_compiled, choose_device, choose_dtype, load_components
from iris.errors import StoreError
from iris.fit import Fit

CPU = torch.device("cpu")


@pytest.fixture
def folder(folders, tmp_path):
    """A copy of a model to spoil."""
    shutil.copytree(folders["fine"] / "weights", tmp_path / "model")
    return tmp_path / "model"


def rewrite(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_a_model_brings_its_own_numbers(fine, coarse):
    assert fine[0].pixels_per_token == 16
    assert coarse[0].pixels_per_token == 32
    assert fine[0].text_layers == (1, 2, 3)
    assert fine[0].text_tokens == 128


def test_a_model_without_numbers_is_taken_for_a_published_klein(folder):
    """Its text layers are those of the published checkpoints, which this small one lacks."""
    (folder / "iris.json").unlink()
    with pytest.raises(StoreError, match=r"\(9, 18, 27\)"):
        load_components(folder, CPU, torch.float32)


def test_a_folder_that_lacks_a_part_is_refused(folder):
    shutil.rmtree(folder / "vae")
    with pytest.raises(StoreError, match="no complete Flux2KleinPipeline"):
        load_components(folder, CPU, torch.float32)


def test_weights_that_are_not_safetensors_are_refused(folder):
    weights = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".bin"))
    with pytest.raises(StoreError):
        load_components(folder, CPU, torch.float32)


@pytest.mark.parametrize("option", ["use_karras_sigmas", "invert_sigmas", "stochastic_sampling"])
def test_a_noise_schedule_the_engine_would_get_wrong_is_refused(option, folder):
    rewrite(folder / "scheduler" / "scheduler_config.json", **{option: True})
    with pytest.raises(StoreError, match=option):
        load_components(folder, CPU, torch.float32)


def test_text_of_another_width_than_the_transformer_takes_is_refused(folder):
    rewrite(folder / "iris.json", text_encoder_out_layers=[1, 2])
    with pytest.raises(StoreError, match="takes text of width"):
        load_components(folder, CPU, torch.float32)


@pytest.mark.parametrize("name", ["sides", "composition_sides", "reference_sides"])
def test_sides_are_read_and_ones_that_cannot_be_are_refused(name, folder):
    sides = {"shorter_px": 64, "longer_most_px": 128}
    rewrite(folder / "iris.json", **{name: sides})
    assert getattr(load_components(folder, CPU, torch.float32), name) == Sides(64, 128)
    for wrong in ({"shorter_px": 64}, sides | {"longer_most_px": 10}, [64, 96], "large"):
        rewrite(folder / "iris.json", **{name: wrong})
        with pytest.raises(StoreError, match=rf"iris\.json: {name} must give"):
            load_components(folder, CPU, torch.float32)


def test_nothing_of_a_loaded_model_can_be_trained_by_accident(fine):
    parts = (fine[0].transformer, fine[0].vae, fine[0].text_encoder)
    assert not any(p.requires_grad for part in parts for p in part.parameters())
    assert not any(part.training for part in parts)


def test_convolutions_have_channels_last(fine):
    kernels = [m.weight for m in fine[0].vae.modules() if isinstance(m, torch.nn.Conv2d)]
    assert any(kernel.shape[1] > 1 for kernel in kernels)
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)


def test_the_dtype_follows_the_device_unless_it_is_named():
    assert choose_dtype("auto", torch.device("cuda")) == torch.bfloat16
    assert choose_dtype("bfloat16", CPU) == torch.bfloat16
    assert choose_dtype("float32", torch.device("cuda")) == torch.float32


@pytest.mark.parametrize("ability", ["avx512_bf16", "amx_bf16"])
def test_a_cpu_computes_in_bfloat16_only_where_it_multiplies_it_itself(ability, monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {ability: True})
    assert choose_dtype("auto", CPU) == torch.bfloat16
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert choose_dtype("auto", CPU) == torch.float32


@pytest.mark.parametrize(
    ("ability", "dtype"), [("avx2", torch.float32), ("avx512_bf16", torch.bfloat16)]
)
def test_a_text_encoder_on_the_processor_computes_in_what_that_multiplies(
    ability, dtype, folder, monkeypatch
):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {ability: True})
    loaded = load_components(folder, CPU, torch.bfloat16, Fit("whole", "cpu"))
    assert {p.dtype for p in loaded.text_encoder.parameters()} == {dtype}
    assert {p.dtype for p in loaded.transformer.parameters()} == {torch.bfloat16}
    prompts = PromptEncoder(loaded)
    assert prompts.encode(["a red boat"]).dtype == torch.bfloat16


def test_the_device_is_the_best_there_is_unless_it_is_named(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"
    assert choose_device("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto").type == "cpu"


def test_the_text_encoder_ends_where_nothing_more_is_taken_from_it(fine):
    components, _ = fine
    assert len(components.text_encoder.layers) == max(components.text_layers)
    assert components.text_encoder.config.num_hidden_layers > max(components.text_layers)


@pytest.mark.parametrize(
    ("setting", "device", "programs", "cc", "compiled"),
    [
        ("auto", "cuda", {"gcc"}, None, True),
        ("auto", "cuda", {"clang"}, None, True),
        ("auto", "cuda", set(), "/opt/cc", True),
        ("auto", "cuda", set(), None, False),
        ("auto", "cpu", {"gcc"}, None, False),
        ("on", "cpu", {"gcc"}, None, True),
        ("on", "cuda", set(), None, True),  # asked for: what is missing is told by the compiler
        ("off", "cuda", {"gcc"}, None, False),
    ],
)
def test_auto_compiles_on_cuda_where_there_is_a_compiler(
    setting, device, programs, cc, compiled, monkeypatch
):
    monkeypatch.setattr(shutil, "which", lambda name: name if name in programs else None)
    monkeypatch.delenv("CC", raising=False)
    if cc is not None:
        monkeypatch.setenv("CC", cc)
    assert choose_compiled(setting, torch.device(device)) is compiled


BLOCKS = """
import ctypes, torch
from iris.engine.loader import keep_memory, use_one_heap

names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
Info = type("Info", (ctypes.Structure,), {"_fields_": [(n, ctypes.c_size_t) for n in names]})
count = ctypes.CDLL(None).mallinfo2
count.restype = Info

def from_the_kernel():
    before = count().hblks
    block = torch.ones(40 << 18)  # 40 MiB
    return count().hblks - before

first = from_the_kernel()
use_one_heap(torch.device("cpu"))
keep_memory(torch.device("cpu"))
print(first, from_the_kernel())
"""


def test_large_blocks_come_from_what_the_process_keeps():
    """hblks counts the blocks that glibc has asked the kernel for, one by one."""
    done = subprocess.run(
        [sys.executable, "-c", BLOCKS], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["1", "0"]
