"""Lots: what a caption leaves open, the noise decides.

A picture that could have been several is learnt as their mean from pure noise, and a mean is soft.
So noise and picture are not paired blindly in training: each thing left open is tied to one
direction of the noise, and the noise drawn for an example is one that means what its picture shows.
Noise of every kind still comes as often as plain normal noise has it, so at generation nothing
differs: any seed's noise says which of the backdrops, colours and places it stands for, and the
first step can already paint exactly that one.

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

from world.sampling import UNSAID_PLACES, USUAL_COLOURS
from world.spec import POSITION_X, SCENES, Example

NAMES = ("land", "sky", "warmth", "place", "colour", "other colour", "scene")
Interval = tuple[float, float]  # of the normal distribution's quantiles, 0..1
FREE: Interval = (0.0, 1.0)
_PLACES = 4  # of a 2x2 patch: the channels of one component
_FIRST = 128 - _PLACES * len(NAMES)  # the finest components: pictures say least there
_EDGE = 1e-3  # normal noise beyond this quantile is left out


def lots_of(example: Example) -> list[Interval]:
    """For each of NAMES, the quantiles of noise that stand for what the example's target shows."""
    target, intent = example.target, example.intent
    lots = dict.fromkeys(NAMES, FREE)
    if intent.operation not in ("paint", "compose"):
        return list(lots.values())  # an edit's source shows everything
    if intent.scene_image is None:
        lots["land"] = _part(target.backdrop.land, 2)
        lots["sky"] = _part(target.backdrop.sky, 3)
        warm = (target.backdrop.warmth + 1) / 2
        lots["warmth"] = (warm, warm)
    if intent.operation == "compose":
        return list(lots.values())  # all else is said, or in one of the references
    if intent.scene is None:
        lots["scene"] = _part(SCENES.index(target.scene), len(SCENES))
    names = ("colour", "other colour")
    for name, wanted, thing in zip(names, intent.objects, target.things, strict=False):
        if wanted.colour is None and thing.colour in USUAL_COLOURS[thing.kind]:
            usual = USUAL_COLOURS[thing.kind]
            lots[name] = _part(usual.index(thing.colour), len(usual))
    if len(target.things) == 1 and intent.objects[0].position is None:
        x = target.things[0].x
        below = sum(UNSAID_PLACES[name] for name in POSITION_X if POSITION_X[name] < x - 1e-6)
        here = next(name for name in POSITION_X if abs(POSITION_X[name] - x) < 1e-6)
        whole = sum(UNSAID_PLACES.values())
        lots["place"] = (below / whole, (below + UNSAID_PLACES[here]) / whole)
    return list(lots.values())


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
    several = noise[:, :, _FIRST:].view(count, tokens, len(NAMES), _PLACES)
    scale = math.sqrt(tokens * _PLACES)
    change = (loudness * wanted - several.sum(dim=(1, 3)) / scale) / scale
    tied = several + change[:, None, :, None]
    return torch.cat([noise[:, :, :_FIRST], tied.flatten(2)], dim=2)
