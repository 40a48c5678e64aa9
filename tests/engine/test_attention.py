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
    ("lengths", "expected"),
    [((1536,), "one by one"), ((600,), "varlen"), ((2816, 768), "one by one"),
     ((2000, 30, 40), "varlen")],
)  # fmt: skip
def test_only_segments_that_are_high_go_by_themselves(lengths, expected, monkeypatch):
    for name in ("one_by_one", "varlen"):
        monkeypatch.setattr(attention, name, lambda *_, name=name: name.replace("_", " "))
    tokens = torch.zeros(sum(lengths), 1, 1)
    segments = Segments(lengths, tokens.device)
    assert attention.by_height(tokens, tokens, tokens, segments) == expected
