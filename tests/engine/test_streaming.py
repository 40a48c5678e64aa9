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
