import pytest
import torch

from iris.engine.faults import Faults
from iris.errors import StoreError

ILLEGAL_ACCESS = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might"


def after(*errors):
    faults = Faults()
    for error in errors:
        if error is None:
            faults.succeeded()
        else:
            faults.failed(error)
    return faults.is_broken


@pytest.mark.parametrize("kind", [RuntimeError, torch.AcceleratorError])
def test_a_device_that_answers_everything_with_one_error_is_broken_at_once(kind):
    assert after(kind(ILLEGAL_ACCESS))
    assert after(kind("CUDA error: uncorrectable ECC error encountered"), None)


def test_five_pictures_in_a_row_are_more_than_chance():
    error = RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")
    assert not after(*[error] * 4)
    assert not after(*[error] * 4, None, error)
    assert after(*[error] * 5)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
        FloatingPointError("the decoded picture is not finite"),
        StoreError("The style cannot be read."),
        ValueError(ILLEGAL_ACCESS),
    ],
)
def test_what_is_no_fault_of_the_device_never_counts(error):
    assert not after(*[error] * 20)


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory",
        "CUDA error: invalid configuration argument",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "the prompt was: CUDA error: an illegal memory access was encountered",
    ],
)
def test_an_error_of_one_call_is_not_that_of_a_device_that_is_lost(text):
    assert not after(RuntimeError(text))
    assert after(*[RuntimeError(text)] * 5)
