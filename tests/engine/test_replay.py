"""A recorded computation gives what the computation gives; only where there is a GPU."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from iris.engine.replay import Recorder

pytestmark = pytest.mark.gpu


def squares(x, factor):
    return (x @ x.T * factor).relu()


@torch.inference_mode()
def test_a_replay_is_the_computation_for_whoever_asks():
    device = torch.device("cuda")
    generator = torch.Generator(device).manual_seed(0)

    def given():
        x = torch.randn(64, 64, generator=generator, device=device, dtype=torch.bfloat16)
        return x, torch.full((), 3.0, device=device)

    replay = Recorder().record(squares, given(), warm_calls=1)
    cases = [given() for _ in range(40)]

    @torch.inference_mode()
    def replayed(case):
        return replay(*case)

    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(replayed, cases))
    for case, answer in zip(cases, answers, strict=True):
        assert torch.equal(answer, squares(*case))


@torch.inference_mode()
def test_what_waits_for_the_device_is_not_recorded_and_does_no_harm():
    x = torch.ones(8, device="cuda")
    with pytest.raises(RuntimeError):
        Recorder().record(lambda given: given * given.sum().item(), [x])
    torch.cuda.synchronize()
    assert float(x.sum()) == 8
    assert torch.randn(8, device="cuda").isfinite().all()


@torch.inference_mode()
def test_replays_that_share_their_memory_do_not_disturb_one_another():
    recorder = Recorder()
    given = [torch.randn(n, n, device="cuda") for n in (64, 256, 128)]
    factor = torch.full((), 2.0, device="cuda")
    replays = [recorder.record(squares, (x, factor), warm_calls=1) for x in given]
    for _ in range(3):
        for replay, x in zip(replays, given, strict=True):
            assert torch.equal(replay(x, factor), squares(x, factor))
        del replays[0], given[0]  # what is given up leaves the others whole
        x = torch.randn(96, 96, device="cuda")
        given.append(x)
        replays.append(recorder.record(squares, (x, factor), warm_calls=1))
