import pytest
import torch

from iris.engine.pointwise import swiglu


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [77, 208, 641])
def test_what_gates_is_the_same_in_any_company_on_any_number_of_threads(dtype, tokens):
    """The width is iris-mini's. Three threads, or five, cut where no vector ends."""
    x = torch.randn(3 * tokens, 1536, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = torch.get_num_threads()
    try:
        for threads in range(1, 17):
            torch.set_num_threads(threads)
            together = swiglu(x)
            assert torch.equal(together[:tokens], swiglu(x[:tokens].clone())), threads
            assert torch.equal(together[-tokens:], swiglu(x[-tokens:].clone())), threads
    finally:
        torch.set_num_threads(before)
