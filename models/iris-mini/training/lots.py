"""Lots: what a caption leaves open, the noise decides.

A picture that could have been several is learnt as their mean from pure noise, and a mean is soft.
So noise and picture are not paired blindly in training: each thing left open is tied to one
direction of the noise, and the noise drawn for an example is one that means what its picture shows.
Noise of every kind still comes as often as plain normal noise has it, so at generation nothing
differs: any seed's noise says which of the backdrops it stands for, and the first step can already
paint exactly that one. They are few on purpose. Place, colour and scene had lots of their own once,
and pictures were torn between two: a noise near the middle says little, and a second object stood
there half. Now what a caption leaves out follows from the land (world.sampling).

A direction is the mean of some channels over all tokens. It is faint in each token, and a model
that has never read it finds no way to begin: 15,000 samples taught it nothing. So training may
begin with the lots spoken loud, and fall to their true strength as they are heard.

The coupling of noise and data is free in flow matching (Pooladian et al. 2023, "Multisample Flow
Matching"); there it is found by optimal transport within a batch, here it is known.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from world.spec import Example

NAMES = ("land", "sky", "warmth")
Interval = tuple[float, float]  # of the normal distribution's quantiles, 0..1
FREE: Interval = (0.0, 1.0)
_PLACES = 4  # of a 2x2 patch: the channels of one component
# The finest components but four: pictures say little there. (The last four once stood for more.)
FIRST = 100
LAST = FIRST + _PLACES * len(NAMES)
_EDGE = 1e-3  # normal noise beyond this quantile is left out


def lots_of(example: Example) -> list[Interval]:
    """For each of NAMES, the quantiles of noise that stand for what the example's target shows."""
    backdrop, intent = example.target.backdrop, example.intent
    if intent.operation not in ("paint", "compose") or intent.scene_image is not None:
        return [FREE] * len(NAMES)  # the source, or one of the images, shows everything
    warm = (backdrop.warmth + 1) / 2
    return [_part(backdrop.land, 2), _part(backdrop.sky, 3), (warm, warm)]


def _part(number: int, of: int) -> Interval:
    return number / of, (number + 1) / of


def tie(noise: Tensor, lots: Tensor, generator: torch.Generator, loudness: float = 1.0) -> Tensor:
    """Noise that means what the pictures show, and at loudness 1 is as normal as before.

    noise: (B, tokens, 128), normal; lots: (B, len(NAMES), 2), quantiles from and to.
    """
    count, tokens = noise.shape[:2]
    low, high = lots.clamp(_EDGE, 1 - _EDGE).unbind(2)
    drawn = low + (high - low) * torch.rand(low.shape, generator=generator, device=low.device)
    wanted = math.sqrt(2) * torch.erfinv(2 * drawn - 1)  # (B, lots)
    several = noise[:, :, FIRST:LAST].view(count, tokens, len(NAMES), _PLACES)
    scale = math.sqrt(tokens * _PLACES)
    change = (loudness * wanted - several.sum(dim=(1, 3)) / scale) / scale
    tied = several + change[:, None, :, None]
    return torch.cat([noise[:, :, :FIRST], tied.flatten(2), noise[:, :, LAST:]], dim=2)
