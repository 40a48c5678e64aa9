import pytest
import torch

from iris.engine.cache import Cache
from iris.engine.memory import check_memory, is_out_of_memory, with_room
from iris.errors import ConfigError
from iris.fit import Fit, ModelSize

GIB = 1 << 30
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
# 4 GiB in bfloat16, all but a little of it in the blocks
SIZE = ModelSize(
    blocks=2 * GIB - 4,
    largest_block=1,
    transformer_rest=1,
    text_layers=1,
    largest_text_layer=1,
    text_embedding=1,
    autoencoder=1,
)


@pytest.fixture
def a_gpu(monkeypatch):
    """With 10 GiB, 9 of them free, and no float8 units."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (9 * GIB, 10 * GIB))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))


def test_a_gpu_is_asked_for_its_memory_by_every_engine_on_it(a_gpu):
    check_memory("m", SIZE, Fit(), GPU, 2)
    with pytest.raises(ConfigError, match="IRIS_ENGINES"):
        check_memory("m", SIZE, Fit(), GPU, 2, engines=2)
    with pytest.raises(ConfigError, match=r"needs about 11\.0 GiB"):
        check_memory("m", SIZE, Fit(), GPU, 4)


def test_float8_is_refused_before_loading_by_what_lacks_it(a_gpu):
    for device in (GPU, CPU):
        with pytest.raises(ConfigError, match="IRIS_TRANSFORMER=int8"):
            check_memory("m", SIZE, Fit("fp8", "whole"), device, 2)


def test_a_cpu_without_memory_for_the_weights_is_refused_before_loading(monkeypatch):
    monkeypatch.setattr("iris.engine.memory.host_memory_bytes", lambda: 10 * GIB)
    check_memory("m", SIZE, Fit(), CPU, 4)
    with pytest.raises(ConfigError, match=r"take 16\.0 GiB .* 10\.0 GiB are there"):
        check_memory("m", SIZE, Fit(), CPU, 4, engines=2)


def test_what_says_that_memory_ran_out_is_known_and_nothing_else():
    assert is_out_of_memory(torch.OutOfMemoryError())
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("shapes differ"))


def test_the_hosts_allocator_is_recognised_by_what_it_really_says():
    with pytest.raises(RuntimeError) as raised:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(raised.value)


def test_work_that_fits_is_done_once_and_the_cache_stays():
    cache, calls = Cache(1000), []
    cache.put("one", ("prompt", "a"), torch.zeros(2))
    assert with_room(lambda: calls.append(1) or "done", cache) == "done"
    assert (len(calls), len(cache)) == (1, 1)


def test_work_that_fails_otherwise_is_not_repeated():
    cache, calls = Cache(1000), []

    def work():
        calls.append(1)
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        with_room(work, cache)
    assert len(calls) == 1
