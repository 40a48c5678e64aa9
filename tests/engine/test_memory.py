import pytest
import torch

from iris.engine.cache import Cache
from iris.engine.memory import is_out_of_memory, with_room


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
