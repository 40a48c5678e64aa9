"""Blocks whose weights lie in host memory, on the device only while they are run.

While one block computes, the next one is fetched, so two of them lie on the device at most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn


class StreamedBlocks(nn.ModuleList):
    """In the place of a model's list of blocks: going through it brings each one to the device.

    Who goes through it must be done with a block before asking for the next, as a forward pass is.
    One at a time does; others wait.
    """

    def __init__(self, blocks: Iterable[nn.Module], device: torch.device) -> None:
        super().__init__(blocks)
        self._device = device
        self._weights = [_Weights(block, device) for block in self._modules.values()]
        self._copying: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._copying = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._lock = Lock()

    def __getitem__(self, index: Any) -> Any:
        """All of them for the slice that a forward pass takes; single blocks stay on the host."""
        if isinstance(index, slice) and index.indices(len(self)) == (0, len(self), 1):
            return self
        blocks = list(self._modules.values())[index]
        return nn.ModuleList(blocks) if isinstance(index, slice) else blocks

    def __iter__(self) -> Iterator[nn.Module]:
        with self._lock:
            try:
                self._fetch(0)
                for number, block in enumerate(self._modules.values()):
                    if self._copying is not None:
                        torch.cuda.current_stream(self._device).wait_stream(self._copying)
                    self._weights[number].install()
                    if number + 1 < len(self):
                        self._fetch(number + 1)
                    if block is not None:
                        yield block
                    self._weights[number].remove()
            finally:
                for weights in self._weights:
                    weights.remove()

    def _fetch(self, number: int) -> None:
        if self._copying is None:
            self._weights[number].fetch()
            return
        with torch.cuda.stream(self._copying):
            self._weights[number].fetch()


class _Weights:
    """The tensors of one block, in host memory for good and on the device for a while."""

    def __init__(self, block: nn.Module, device: torch.device) -> None:
        self._device = device
        self._tensors = [*block.parameters(), *block.buffers()]
        for tensor in self._tensors:
            tensor.data = tensor.data.cpu()
            if device.type == "cuda":
                tensor.data = tensor.data.pin_memory()
        self._at_home = [tensor.data for tensor in self._tensors]
        self._fetched: list[Tensor] = []

    def fetch(self) -> None:
        self._fetched = [
            tensor.to(self._device, non_blocking=True, copy=True) for tensor in self._at_home
        ]

    def install(self) -> None:
        for tensor, copy in zip(self._tensors, self._fetched, strict=True):
            if copy.is_cuda:  # its memory may be given out again only after what is asked for now
                copy.record_stream(torch.cuda.current_stream(self._device))
            tensor.data = copy
        self._fetched = []

    def remove(self) -> None:
        self._fetched = []
        for tensor, home in zip(self._tensors, self._at_home, strict=True):
            tensor.data = home
