import threading

import torch
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from iris.engine.cache import Cache


def a_tensor(size=10, value=0.0):
    return torch.full((size,), value)  # 4 bytes each


def test_a_tensor_is_found_under_its_owner_kind_and_content():
    cache = Cache(1000)
    kept = a_tensor()
    cache.put("one", ("prompt", "a boat"), kept)
    assert cache.get("one", ("prompt", "a boat")) is kept
    assert cache.get("one", ("prompt", "a cat")) is None
    assert cache.get("one", ("image", "a boat")) is None


def test_hits_and_misses_are_counted_by_kind():
    def counted(**labels):
        return REGISTRY.get_sample_value("iris_engine_cache_total", labels) or 0.0

    cache = Cache(1000)
    cache.put("one", ("prompt", "a boat"), a_tensor())
    kinds = [
        {"kind": kind, "result": result}
        for kind in ("prompt", "image")
        for result in ("hit", "miss")
    ]
    before = [counted(**labels) for labels in kinds]
    for key in (("prompt", "a boat"), ("prompt", "a boat"), ("prompt", "a cat"), ("image", "a")):
        cache.get("one", key)
    after = [counted(**labels) for labels in kinds]
    assert [b - a for a, b in zip(before, after, strict=True)] == [2, 1, 0, 1]


def test_nothing_is_shared_between_owners():
    cache = Cache(1000)
    cache.put("one", ("prompt", "a boat"), a_tensor())
    assert cache.get("two", ("prompt", "a boat")) is None


def test_the_least_recently_used_goes_first():
    cache = Cache(80)
    for name in "ab":
        cache.put("one", ("prompt", name), a_tensor())
    cache.get("one", ("prompt", "a"))
    cache.put("one", ("prompt", "c"), a_tensor())
    assert cache.get("one", ("prompt", "b")) is None
    assert cache.get("one", ("prompt", "a")) is not None
    assert cache.get("one", ("prompt", "c")) is not None


def test_an_owner_who_asks_for_much_pushes_out_only_their_own():
    cache = Cache(400)
    cache.put("quiet", ("prompt", "mine"), a_tensor())
    for number in range(100):
        cache.put("loud", ("prompt", number), a_tensor())
    assert cache.get("quiet", ("prompt", "mine")) is not None
    assert cache.get("loud", ("prompt", 99)) is not None
    assert cache.get("loud", ("prompt", 0)) is None


def test_what_is_larger_than_the_cache_is_not_kept():
    cache = Cache(39)
    cache.put("one", ("prompt", "a"), a_tensor())
    assert len(cache) == 0


def test_cleared_it_is_empty_and_usable():
    cache = Cache(100)
    cache.put("one", ("prompt", "a"), a_tensor())
    cache.clear()
    assert len(cache) == 0
    cache.put("one", ("prompt", "a"), a_tensor(value=2.0))
    assert cache.get("one", ("prompt", "a"))[0] == 2.0


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5), st.integers(1, 30)), max_size=60)
)
def test_it_never_holds_more_than_its_bound(puts):
    cache = Cache(200)
    for owner, key, size in puts:
        cache.put(owner, ("image", key), a_tensor(size))
        held = [value for own in cache._owners.values() for value in own.values()]
        assert sum(value.nbytes for value in held) <= 200
        assert sum(cache._bytes.values()) == sum(value.nbytes for value in held)


def test_many_threads_may_use_it_at_once():
    cache = Cache(400)

    def use(owner):
        for number in range(2000):
            cache.put(owner, ("prompt", number % 7), a_tensor())
            cache.get(owner, ("prompt", number % 5))

    threads = [threading.Thread(target=use, args=(owner,)) for owner in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sum(cache._bytes.values()) <= 400


def test_what_else_was_kept_is_let_go_of_with_it():
    let_go = []
    cache = Cache(100, lambda: let_go.append(True))
    cache.clear()
    assert let_go == [True]
