"""A computation of fixed shapes on CUDA, recorded once: a replay is one call to the driver.

A text encoder asks for some 1,600 small kernels a prompt, and the device is done with each before
the host has asked for the next. Replayed, they follow one another without the host.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_WARM_CALLS = 2  # before recording: libraries choose their kernels and take their workspaces


class Replay:
    """`work`, for inputs of the shapes, dtypes and device of those it was recorded with.

    The recording keeps the memory that the work takes, which nobody else can be given. Safe to
    call from several threads, all on the same stream.
    """

    def __init__(self, work: Callable[..., Tensor], inputs: Sequence[Tensor]) -> None:
        """work: asks the device for the same whatever the values are, and never waits for it.

        Other threads may use the device meanwhile.

        Raises:
            RuntimeError: the work does something that cannot be recorded.
        """
        self._lock = threading.Lock()
        self._inputs = [given.clone() for given in inputs]
        here = torch.cuda.current_stream()
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            for _ in range(_WARM_CALLS):
                work(*self._inputs)
        here.wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        recording = torch.cuda.graph(self._graph, stream=aside, capture_error_mode="thread_local")
        with torch.cuda.stream(here), recording:  # one that fails may not lead back by itself
            self._output = work(*self._inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """What the work gives for these inputs, in memory of its own."""
        with self._lock:  # whoever comes next writes over inputs and output
            for kept, given in zip(self._inputs, inputs, strict=True):
                kept.copy_(given)
            self._graph.replay()
            return self._output.clone()
