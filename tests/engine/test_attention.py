import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iris.engine import attention
from iris.engine.attention import Segments, by_height, choose, one_by_one, varlen

CUDA = torch.cuda.is_available()
# name -> (implementation, device, dtype, tolerance)
IMPLEMENTATIONS = {"one by one": (one_by_one, "cpu", torch.float32, 1e-5)}
if CUDA:
    IMPLEMENTATIONS["one by one on CUDA"] = (one_by_one, "cuda", torch.float32, 1e-4)
    IMPLEMENTATIONS["one by one, 16 bits"] = (one_by_one, "cuda", torch.bfloat16, 2e-2)
    IMPLEMENTATIONS["varlen"] = (varlen, "cuda", torch.bfloat16, 2e-2)


def by_the_book(query, key, value):
    """softmax(QK^T / sqrt(d)) V of one segment, in double precision."""
    query, key, value = (part.double().transpose(0, 1) for part in (query, key, value))
    scores = query @ key.transpose(1, 2) / query.shape[-1] ** 0.5
    return (scores.softmax(-1) @ value).transpose(0, 1)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@settings(max_examples=30, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 90), min_size=1, max_size=6),
    heads=st.integers(1, 4),
    seed=st.integers(0, 9),
)
def test_a_segment_attends_to_itself_alone(name, lengths, heads, seed):
    attend, device, dtype, tolerance = IMPLEMENTATIONS[name]
    generator = torch.Generator().manual_seed(seed)
    shape = (3, sum(lengths), heads, 32)
    parts = torch.randn(shape, generator=generator).to(device, dtype)
    segments = Segments(tuple(lengths), parts.device)
    answer = attend(*parts, segments)
    expected = torch.cat([by_the_book(*segment) for segment in parts.split(lengths, dim=1)])
    assert answer.shape == shape[1:]
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
            assert torch.equal(query, key)
            assert torch.equal(query, value)
            assert len(query) == sum(segments.lengths)
            gone[is_high] += segments.lengths
            return query

        return attend

    monkeypatch.setattr(attention, "one_by_one", way(is_high=True))
    monkeypatch.setattr(attention, "varlen", way(is_high=False))
    tokens = torch.arange(float(sum(lengths))).view(-1, 1, 1)
    segments = Segments(lengths, tokens.device)
    assert torch.equal(attention.by_height(tokens, tokens, tokens, segments), tokens)
    by_height = list(zip(lengths, high, strict=True))
    assert gone == {
        way: [length for length, is_high in by_height if is_high == way] for way in (True, False)
    }
