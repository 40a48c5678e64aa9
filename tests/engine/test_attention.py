import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iris.engine import attention
from iris.engine.attention import Segments, by_height, choose, one_by_one, varlen

# implementation, device, dtype, tolerance
ON_CUDA = [
    ("one by one on CUDA", one_by_one, torch.float32, 1e-4),
    ("one by one, 16 bits", one_by_one, torch.bfloat16, 2e-2),
    ("varlen", varlen, torch.bfloat16, 2e-2),
    ("by height", by_height, torch.bfloat16, 2e-2),
]
IMPLEMENTATIONS = pytest.mark.parametrize(
    ("attend", "device", "dtype", "tolerance"),
    [pytest.param(one_by_one, "cpu", torch.float32, 1e-5, id="one by one")]
    + [
        pytest.param(attend, "cuda", dtype, tolerance, id=name, marks=pytest.mark.gpu)
        for name, attend, dtype, tolerance in ON_CUDA
    ],
)


def by_the_book(query, key, value):
    """softmax(QK^T / sqrt(d)) V of one segment, in double precision."""
    query, key, value = (part.double().transpose(0, 1) for part in (query, key, value))
    scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
    return (scores.softmax(-1) @ value).transpose(0, 1)


@IMPLEMENTATIONS
@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=6),
    heads=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_a_segment_attends_to_itself_alone(attend, device, dtype, tolerance, lengths, heads, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (3, sum(lengths), heads, 32)
    parts = torch.randn(shape, generator=generator).to(device, dtype)
    segments = Segments(tuple(lengths), parts.device)
    answer = attend(*parts, segments)
    expected = torch.cat([by_the_book(*segment) for segment in parts.split(lengths, dim=1)])
    assert answer.shape == shape[1:]
    assert (answer.double() - expected).abs().max() < tolerance


@IMPLEMENTATIONS
@settings(max_examples=30, deadline=None)
@given(
    counts=st.lists(st.tuples(st.integers(1, 40), st.integers(0, 50)), min_size=1, max_size=6),
    seed=st.integers(0, 9),
)
def test_tokens_that_do_not_ask_are_seen_all_the_same(
    attend, device, dtype, tolerance, counts, seed
):
    asking = tuple(queries for queries, _ in counts)
    lengths = tuple(map(sum, counts))
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(sum(asking), 2, 32, generator=generator).to(device, dtype)
    others = torch.randn(2, sum(lengths), 2, 32, generator=generator).to(device, dtype)
    answer = attend(query, *others, Segments(lengths, query.device, asking))
    parts = zip(query.split(asking), *(part.split(lengths) for part in others), strict=True)
    expected = torch.cat([by_the_book(*segment) for segment in parts])
    assert answer.shape == query.shape
    assert (answer.double() - expected).abs().max() < tolerance


@pytest.mark.parametrize(
    ("device", "dtype", "capability", "expected"),
    [
        ("cuda", torch.bfloat16, (8, 9), varlen),
        ("cuda", torch.float16, (9, 0), by_height),
        ("cuda", torch.bfloat16, (10, 0), by_height),
        ("cuda", torch.float32, (9, 0), one_by_one),
        ("cpu", torch.bfloat16, None, one_by_one),
    ],
)
def test_sixteen_bits_on_cuda_go_through_what_is_made_for_them_and_all_else_does_not(
    device, dtype, capability, expected, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert choose(torch.device(device), dtype) is expected


@pytest.mark.parametrize(
    ("lengths", "high"),
    [
        ((1536,), [True]),
        ((600,), [False]),
        ((2816, 768), [True, False]),
        ((30, 2000, 1024, 40, 50), [False, True, True, False, False]),
    ],
)
def test_a_segment_goes_by_its_own_height_whatever_its_company(lengths, high, monkeypatch):
    """Or a picture would be rounded otherwise in company than alone."""
    gone = {True: [], False: []}

    def way(is_high):
        def attend(query, key, value, segments):
            assert torch.equal(key, value)
            assert key.flatten().tolist() == numbers(segments.lengths, first=key[0])
            asking = segments.asking or segments.lengths
            assert query.flatten().tolist() == numbers(asking, first=query[0])
            gone[is_high] += zip(asking, segments.lengths, strict=True)
            return query

        return attend

    monkeypatch.setattr(attention, "one_by_one", way(is_high=True))
    monkeypatch.setattr(attention, "varlen", way(is_high=False))
    tokens = torch.arange(float(sum(lengths))).view(-1, 1, 1)
    for asking in (None, tuple(length // 2 for length in lengths)):
        gone[True], gone[False] = [], []
        query = torch.arange(float(sum(asking or lengths))).view(-1, 1, 1)
        segments = Segments(lengths, tokens.device, asking)
        assert torch.equal(attention.by_height(query, tokens, tokens, segments), query)
        by_height = list(zip(asking or lengths, lengths, high, strict=True))
        assert gone == {way: [tuple(c) for *c, h in by_height if h == way] for way in (True, False)}


def numbers(lengths, first):
    start = float(first)
    return [start + number for number in range(sum(lengths))]
