"""Blocks whose weights lie in host memory, on the device only while they are run.

While one block computes, the next one is fetched. A pass takes room for two of them on the device
and no more, however far the host runs ahead of what it asks the device for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

_ALIGNMENT = 256  # bytes, of tensors in one piece of memory; what CUDA's own allocations have


class StreamedBlocks(nn.ModuleList):
    """In the place of a model's list of blocks: going through it brings each one to the device.

    Who goes through it must be done with a block before asking for the next, as a forward pass is.
    One at a time does; others wait.
    """

    def __init__(self, blocks: Iterable[nn.Module], device: torch.device) -> None:
        super().__init__(blocks)
        self._device = device
        is_pinned = device.type == "cuda"
        self._homes = [_Home(block, is_pinned=is_pinned) for block in self._blocks()]
        self._copying: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._lock = Lock()

    def __getitem__(self, index: Any) -> Any:
        """All of them for the slice that a forward pass takes; single blocks stay on the host."""
        if isinstance(index, slice) and index.indices(len(self)) == (0, len(self), 1):
            return self
        blocks = self._blocks()[index]
        return nn.ModuleList(blocks) if isinstance(index, slice) else blocks

    def __iter__(self) -> Iterator[nn.Module]:
        with self._lock:
            largest = max((home.flat.nbytes for home in self._homes), default=0)
            rooms = [torch.empty(largest, dtype=torch.uint8, device=self._device) for _ in range(2)]
            try:
                for number, block in enumerate(self._blocks()):
                    if number == 0:
                        self._fetch(0, rooms)
                    self._wait_for_copies()
                    self._homes[number].move_to(rooms[number % 2])
                    if number + 1 < len(self):
                        self._fetch(number + 1, rooms)
                    yield block
                    self._homes[number].move_back()
            finally:
                for home in self._homes:
                    home.move_back()
                self._wait_for_copies()  # the rooms may be given to others after this

    def _blocks(self) -> list[nn.Module]:
        """Where they are, without bringing them anywhere."""
        return [block for block in self._modules.values() if block is not None]

    def _fetch(self, number: int, rooms: list[Tensor]) -> None:
        """Copy a block to its room, which the block before the last has had."""
        home = self._homes[number].flat
        with self._beside():
            rooms[number % 2][: home.nbytes].copy_(home, non_blocking=True)

    def _beside(self) -> AbstractContextManager[object]:
        """Inside, copies run beside what is asked for later, but behind what was asked for."""
        if self._copying is None:
            return nullcontext()
        self._copying.wait_stream(torch.cuda.current_stream(self._device))
        return torch.cuda.stream(self._copying)

    def _wait_for_copies(self) -> None:
        """What is asked for from now on runs behind them; the host does not wait."""
        if self._copying is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._copying)


class _Home:
    """The tensors of one block, side by side in one piece of host memory, for good.

    One piece is one copy, and pinned memory, which is given out by powers of two, is wasted least.
    """

    def __init__(self, block: nn.Module, *, is_pinned: bool) -> None:
        self._tensors = [*block.parameters(), *block.buffers()]
        self._starts: list[int] = []
        end = 0
        for tensor in self._tensors:
            self._starts.append(end)
            end += -(-tensor.nbytes // _ALIGNMENT) * _ALIGNMENT
        self.flat = torch.empty(end, dtype=torch.uint8, pin_memory=is_pinned)
        self._at_home = self._laid_out(self.flat)
        for tensor, home in zip(self._tensors, self._at_home, strict=True):
            home.copy_(tensor.data)
            tensor.data = home

    def move_to(self, room: Tensor) -> None:
        """The block's tensors lie in the room, where they have been copied to."""
        for tensor, copy in zip(self._tensors, self._laid_out(room), strict=True):
            tensor.data = copy

    def move_back(self) -> None:
        for tensor, home in zip(self._tensors, self._at_home, strict=True):
            tensor.data = home

    def _laid_out(self, memory: Tensor) -> list[Tensor]:
        """The tensors' shapes and dtypes over the memory, (bytes,) uint8."""
        return [
            memory[start : start + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            for start, tensor in zip(self._starts, self._tensors, strict=True)
        ]
