"""A computation of fixed shapes on CUDA, recorded once: a replay is one call to the driver.

A text encoder asks for some 1,600 small kernels a prompt, and the device is done with each before
the host has asked for the next. Replayed, they follow one another without the host.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
from torch import Tensor

from iris.engine.memory import RECORDING

Work = Callable[..., Tensor]


class Recorder:
    """Where recordings are made that are never replayed at once: they share their memory."""

    def __init__(self) -> None:
        # Memory goes from one recording to the next only where both were made on one stream.
        self._aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, work: Work, inputs: Sequence[Tensor], *, warm_calls: int = 0) -> Replay:
        """The work, for inputs of the shapes, dtypes and device of these.

        work: asks the device for the same whatever the values are, and never waits for it. Other
        threads may use the device meanwhile. Nothing is computed yet.
        warm_calls: before recording, so that libraries choose their kernels and take their
        workspaces; 0 where the work has been done with such inputs before.

        Raises:
            RuntimeError: the work does something that cannot be recorded.
        """
        kept = [given.clone() for given in inputs]
        here = torch.cuda.current_stream()
        self._aside.wait_stream(here)
        graph = torch.cuda.CUDAGraph()
        with RECORDING, torch.cuda.stream(self._aside):
            for _ in range(warm_calls):
                work(*kept)
            # not torch.cuda.graph: it waits for the device and gives all free memory back first
            graph.capture_begin(self._pool, capture_error_mode="thread_local")
            try:
                output = work(*kept)
            except BaseException:
                with suppress(RuntimeError):  # what went wrong is on its way already
                    graph.capture_end()
                _draw_numbers_again()
                raise
            graph.capture_end()
        here.wait_stream(self._aside)
        return Replay(work, graph, kept, output)


def _draw_numbers_again() -> None:
    """Let the device's own random numbers be drawn after a recording that failed.

    Their generator still takes itself to be recorded then, and refuses; a copy of it does not.
    """
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    generator.graphsafe_set_state(generator.clone_state())


class Replay:
    """A recorded computation. Safe to call from several threads, all on the same stream.

    It keeps the memory that the work takes, which only its recorder's others are given, and the
    work itself: what that holds on to, the recording reads.
    """

    def __init__(
        self, work: Work, graph: torch.cuda.CUDAGraph, inputs: Sequence[Tensor], output: Tensor
    ) -> None:
        self._lock = threading.Lock()
        self._work = work
        self._graph = graph
        self._inputs = inputs
        self._output = output
        self.kept_bytes = sum(kept.nbytes for kept in (*inputs, output))

    def __call__(self, *inputs: Tensor) -> Tensor:
        """What the work gives for these inputs, in memory of its own."""
        with self._lock:  # whoever comes next writes over inputs and output
            for kept, given in zip(self._inputs, inputs, strict=True):
                kept.copy_(given)
            self._graph.replay()
            return self._output.clone()
