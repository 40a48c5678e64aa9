import itertools

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from iris.engine.flow import euler_step, initial_noise, mix, sigma_schedule

SHIFTS = {
    "dynamic": {"use_dynamic_shifting": True, "shift": 3.0},
    "linear": {"use_dynamic_shifting": True, "time_shift_type": "linear"},
    "fixed": {"shift": 7.0},
    "none": {"shift": 1.0},
}


@pytest.fixture(params=SHIFTS.values(), ids=SHIFTS.keys())
def scheduler(request):
    return FlowMatchEulerDiscreteScheduler(**request.param)


@pytest.mark.parametrize("steps", [1, 4, 50])
@pytest.mark.parametrize("strength", [0.05, 0.3, 0.75, 0.999])
def test_an_edit_starts_at_its_strength_and_takes_every_step(scheduler, strength, steps):
    sigmas = sigma_schedule(scheduler, steps, 576, strength)
    assert len(sigmas) == steps + 1
    assert float(sigmas[0]) == pytest.approx(strength, abs=1e-5)
    assert float(sigmas[-1]) == 0.0
    assert bool((sigmas.diff() < 0).all())


@pytest.mark.parametrize("strength", [1e-320, 1e-12])
def test_the_smallest_strengths_still_have_a_schedule(scheduler, strength):
    sigmas = sigma_schedule(scheduler, 4, 576, strength)
    assert bool(torch.isfinite(sigmas).all())
    assert 0.0 < float(sigmas[0]) < 1e-5


@pytest.mark.parametrize("steps", [1, 4, 50])
def test_full_strength_is_exactly_the_schedule_of_a_new_picture(scheduler, steps):
    assert torch.equal(
        sigma_schedule(scheduler, steps, 576, 1.0), sigma_schedule(scheduler, steps, 576)
    )
    assert float(sigma_schedule(scheduler, steps, 576)[0]) == 1.0


def test_noise_is_decided_by_the_seed_alone():
    cpu = torch.device("cpu")
    one = initial_noise((1, 4, 3), 7, cpu)
    torch.manual_seed(99)
    assert torch.equal(one, initial_noise((1, 4, 3), 7, cpu))
    assert not torch.equal(one, initial_noise((1, 4, 3), 8, cpu))
    assert one.dtype == torch.float32


def test_the_largest_seed_is_a_seed():
    initial_noise((1, 2), 2**63 - 1, torch.device("cpu"))


def test_mixing_goes_from_the_picture_to_pure_noise():
    clean, noise = torch.ones(3), torch.full((3,), 5.0)
    assert torch.equal(mix(clean, noise, 0.0), clean)
    assert torch.equal(mix(clean, noise, 1.0), noise)
    assert torch.allclose(mix(clean, noise, 0.25), torch.full((3,), 2.0))


def test_a_step_along_the_true_velocity_reaches_the_picture():
    clean, noise = torch.randn(4), torch.randn(4)
    at_half = mix(clean, noise, 0.5)
    reached = euler_step(at_half, noise - clean, torch.tensor(0.5), torch.tensor(0.0))
    assert torch.allclose(reached, clean, atol=1e-6)


def test_many_small_steps_add_up_to_the_picture():
    clean, noise = torch.randn(4), torch.randn(4)
    sigmas = torch.linspace(1.0, 0.0, 1001)
    latents = noise
    for sigma, sigma_next in itertools.pairwise(sigmas):
        latents = euler_step(latents, noise - clean, sigma, sigma_next)
    assert torch.allclose(latents, clean, atol=1e-4)
