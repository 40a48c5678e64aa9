"""Tells a device that is broken from pictures that fail: only a new process gets it back."""

from __future__ import annotations

import torch

from iris.engine.memory import is_out_of_memory

_MOST_IN_A_ROW = 5
# What CUDA says of one call and not of all that come after it.
_PASSING = ("out of memory", "CUBLAS_STATUS", "invalid argument", "invalid configuration")


class Faults:
    """Pictures that the device failed at, one after another. Not thread-safe."""

    def __init__(self) -> None:
        self._in_a_row = 0
        self._is_lost = False

    @property
    def is_broken(self) -> bool:
        """Whether the device is to be given up."""
        return self._is_lost or self._in_a_row >= _MOST_IN_A_ROW

    def failed(self, error: Exception) -> None:
        """A picture failed. What is wrong with a device is a RuntimeError; others are not its."""
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            self._in_a_row += 1
            self._is_lost = self._is_lost or is_lost(error)

    def succeeded(self) -> None:
        """A picture was made."""
        self._in_a_row = 0


def is_lost(error: Exception) -> bool:
    """Whether the device answers every later call with this error, too."""
    text = str(error)
    says_so = isinstance(error, RuntimeError) and text.startswith("CUDA error")
    is_cudas = says_so or isinstance(error, torch.AcceleratorError)
    return is_cudas and not any(passing in text for passing in _PASSING)
