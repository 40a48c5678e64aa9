"""Flow matching: which noise levels a picture walks through, and one Euler step between two.

`sigma` is the share of noise: 1 is pure noise, 0 the picture.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu
from torch import Tensor

from iris.engine.transfer import upload

# Below this the time shift divides by nothing, and no picture could show the difference.
_LEAST = 1e-6


def sigma_schedule(
    scheduler: FlowMatchEulerDiscreteScheduler,
    num_inference_steps: int,
    image_tokens: int,
    strength: float = 1.0,
) -> Tensor:
    """The noise levels of a picture: (num_inference_steps + 1,) float32 on the CPU, ending at 0.

    image_tokens: tokens of the picture itself, without references; moves a dynamic shift.
    strength: the first level, 0 < strength <= 1. The unshifted levels then run evenly from the
        one that the shift maps to `strength`, so an edit takes as many steps as asked for
        whatever its strength, and strength 1.0 is exactly the schedule of a new picture.
    """
    strength = max(strength, _LEAST)
    mu = compute_empirical_mu(image_seq_len=image_tokens, num_steps=num_inference_steps)
    start = unshift(scheduler.config, mu, strength)
    levels = np.linspace(start, start / num_inference_steps, num_inference_steps)
    scheduler.set_timesteps(num_inference_steps, device="cpu", sigmas=levels, mu=mu)
    sigmas: Tensor = scheduler.sigmas
    return sigmas


def unshift(config: Any, mu: float, sigma: float) -> float:
    """The level that the scheduler's time shift maps to `sigma`.

    Every shift of FlowMatchEulerDiscreteScheduler has the form k*u / (1 + (k - 1)*u).
    """
    if not config.use_dynamic_shifting:
        k = float(config.shift)
    elif config.time_shift_type == "exponential":
        k = math.exp(mu)
    else:
        k = mu
    return sigma / (sigma + k * (1.0 - sigma))


def initial_noise(shape: tuple[int, ...], seed: int, device: torch.device) -> Tensor:
    """Noise of `shape` in float32 that only the seed decides.

    Drawn in float32 on the CPU whatever the device, so that a seed means the same picture on
    every machine and in every batch.
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    return upload(torch.randn(shape, generator=generator, dtype=torch.float32), device)


def mix(clean: Tensor, noise: Tensor, sigma: float) -> Tensor:
    """A picture at noise level `sigma`."""
    return (1.0 - sigma) * clean + sigma * noise


def euler_step(latents: Tensor, velocity: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """One step along the predicted velocity, all in float32."""
    return latents + (sigma_next - sigma) * velocity
