import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from iris.engine.streaming import StreamedBlocks

CPU = torch.device("cpu")


@pytest.fixture
def blocks():
    torch.manual_seed(0)
    return [nn.Linear(4, 4) for _ in range(5)]


def where(blocks):
    return [block.weight.data_ptr() for block in blocks]


def forward(streamed, x):
    for block in streamed:
        x = block(x)
    return x


@torch.no_grad()
def test_a_pass_through_streamed_blocks_is_the_same(blocks):
    x = torch.randn(3, 4)
    expected = forward(blocks, x)
    streamed = StreamedBlocks(blocks, CPU)
    assert torch.equal(forward(streamed, x), expected)
    assert torch.equal(forward(streamed, x), expected)


def test_only_the_block_that_runs_is_away_from_home(blocks):
    streamed = StreamedBlocks(blocks, CPU)
    at_home = where(blocks)
    for number, _ in enumerate(streamed):
        away = [here != home for here, home in zip(where(blocks), at_home, strict=True)]
        assert away == [index == number for index in range(5)]
    assert where(blocks) == at_home


def test_everything_is_at_home_after_a_pass_that_failed(blocks):
    streamed = StreamedBlocks(blocks, CPU)
    at_home = where(blocks)
    with pytest.raises(TypeError):
        forward(streamed, None)
    assert where(blocks) == at_home
    assert len(list(streamed)) == 5


@torch.no_grad()
def test_passes_of_several_threads_do_not_meet(blocks):
    x = torch.randn(64, 4)
    expected = forward(blocks, x)
    streamed = StreamedBlocks(blocks, CPU)
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda _: forward(streamed, x), range(40)))
    assert all(torch.equal(result, expected) for result in results)


def test_the_slice_of_all_of_them_is_streamed_too(blocks):
    streamed = StreamedBlocks(blocks, CPU)
    assert streamed[:5] is streamed
    assert streamed[1] is blocks[1]
    assert len(streamed[:2]) == 2


@torch.no_grad()
def test_a_pass_takes_room_for_two_blocks_and_no_more():
    sizes = [(4, 6), (6, 3), (3, 9), (9, 2), (2, 5)]
    blocks = [nn.Linear(*size) for size in sizes]
    x = torch.randn(3, 4)
    expected = forward(blocks, x)
    seen = set()
    for block in StreamedBlocks(blocks, CPU):
        seen.add(min(tensor.data_ptr() for tensor in block.parameters()))
        x = block(x)
    assert len(seen) == 2
    assert torch.equal(x, expected)


@torch.no_grad()
def test_tensors_of_every_kind_and_form_come_along():
    norms = [nn.BatchNorm1d(3), nn.BatchNorm1d(3).to(torch.bfloat16)]
    for norm in norms:
        norm.register_buffer("mask", torch.tensor([True, False, True]))
        norm.register_buffer("turned", torch.randn(2, 5).T)
        norm.register_buffer("nothing", torch.zeros(0))
    expected = [{k: v.clone() for k, v in norm.state_dict().items()} for norm in norms]
    for norm, values in zip(StreamedBlocks(norms, CPU), expected, strict=True):
        found = norm.state_dict()
        assert found.keys() == values.keys()
        assert all(torch.equal(found[key], value) for key, value in values.items())
        assert all(found[key].dtype == value.dtype for key, value in values.items())


@pytest.mark.gpu
@torch.no_grad()
def test_on_a_gpu_a_pass_takes_room_for_two_blocks_however_far_the_host_is_ahead():
    device = torch.device("cuda")
    blocks = [nn.Linear(2048, 2048) for _ in range(24)]
    x = torch.randn(256, 2048, device=device)
    expected = forward([copy.deepcopy(block).to(device) for block in blocks], x)
    streamed = StreamedBlocks(blocks, device)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    for _ in range(5):
        assert torch.equal(forward(streamed, x), expected)
    taken = torch.cuda.max_memory_allocated() - before
    assert taken < 3 * 4 * 2048 * 2048
    assert all(block.weight.is_pinned() for block in blocks)
