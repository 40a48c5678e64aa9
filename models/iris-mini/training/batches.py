"""Endless batches of one shape each: captions drawn anew, noise added, the answer beside it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from training import text
from training.examples import PART, SHAPES, Part, Shape, load_part
from training.grids import GridSize
from training.lots import tie
from training.text import Prompts
from training.transformer import coordinates, places, positions, shifted, text_positions

UNSAID = 0.1  # share of samples without a caption: what guidance compares with
OBJECT_WEIGHT = 2.5
AHEAD = 8  # batches whose captions are read together
FROM_SOURCE = 0.5  # share of edits that start from the noised source, as strength has it
LEAST_STRENGTH, FULL_STRENGTH = 0.15, 0.6  # below: nothing changes; above: all that was asked


@dataclass(frozen=True, slots=True)
class Batch:
    """What one training step takes; B samples of one shape."""

    shape: Shape
    noisy: Tensor  # (B, tokens, 128)
    references: Tensor  # (B, tokens of the references, 128)
    sigma: Tensor  # (B,)
    prompts: Tensor  # (B, 64, width)
    velocity: Tensor  # (B, tokens, 128): the answer
    weight: Tensor  # (B, tokens, 1)
    fineness: Tensor  # (128,): weight of a channel
    contents: Tensor  # (B, tokens, CONTENTS)
    moods: Tensor  # (B, len(MOODS)) int64
    amount: float  # of the style, for lora_strength

    @property
    def where(self) -> Where:
        return where((self.shape.grid, *self.shape.references), self.noisy.device)


@dataclass(frozen=True, slots=True)
class Where:
    """Where the tokens of a picture and of its references are."""

    image_positions: Tensor  # (tokens, 4)
    text_positions: Tensor  # (text.TOKENS, 4)
    coordinates: Tensor  # (tokens, COORDINATES)
    places: Tensor  # (tokens, PLACES)


@cache
def where(grids: tuple[GridSize, ...], device: torch.device) -> Where:
    found = (
        torch.cat([positions(grid, 10 * number) for number, grid in enumerate(grids)]),
        text_positions(),
        torch.cat([coordinates(grid) for grid in grids]),
        torch.cat([places(grid) for grid in grids]),
    )
    return Where(*(tensor.to(device) for tensor in found))


class Batches:
    """Draws batches from the parts of a folder; new parts are found as they appear."""

    def __init__(
        self,
        folder: Path,
        prompts: Prompts,
        tokens: int,
        seed: int,
        more: Mapping[str, float] | None = None,
    ) -> None:
        """Batches lie on the device of the prompts' encoder, and so do all parts once read.

        more: shapes by name that come more often, so many times, than their share says.
        """
        self._folder = folder
        self._prompts = prompts
        self._device = prompts.encoder.device
        self._unsaid = prompts.ids([""])[0].to(self._device)
        self._more = more or {}
        self._tokens = tokens  # of a whole batch, prompts included
        self.loudness = 1.0  # of what the noise says, see training.lots
        self._rng = random.Random(seed)
        self._noise = torch.Generator(self._device).manual_seed(seed)
        self._parts: dict[Path, Part] = {}
        self._files: dict[str, list[Path]] = {}
        self._drawn: list[tuple[Shape, Part, Tensor, Tensor]] = []
        self.scan()
        # The coarse channels vary most and would be all that counts; outlines are in the fine ones.
        some = next(files[0] for files in self._files.values() if files)
        spread = load_part(some).target.float().flatten(0, 1).std(0).to(self._device)
        self._fineness = spread.mean() / spread

    def scan(self) -> int:
        """Look for parts; returns how many there are."""
        self._files = {
            shape.name: sorted(self._folder.glob(f"{shape.name}.*.pickle")) for shape in SHAPES
        }
        if not any(self._files.values()):
            raise FileNotFoundError(f"No examples in {self._folder}: run `make mini-data` first.")
        return sum(map(len, self._files.values()))

    def next(self) -> Batch:
        if not self._drawn:
            self._drawn = self._draw(AHEAD)
        shape, part, rows, prompts = self._drawn.pop()
        target, references = part.target[rows].float(), part.references[rows].float()
        noisy, sigma, velocity = self._noised(shape, target, references, part, rows)
        return Batch(
            shape=shape,
            noisy=noisy,
            references=references,
            sigma=sigma,
            prompts=prompts,
            velocity=velocity,
            weight=1.0 + (OBJECT_WEIGHT - 1.0) * part.weighty[rows].float().unsqueeze(-1),
            fineness=self._fineness,
            contents=part.contents[rows].float(),
            moods=part.moods[rows],
            amount=part.amount,
        )

    def _draw(self, count: int) -> list[tuple[Shape, Part, Tensor, Tensor]]:
        """For so many batches: the shape, the part, its rows, and captions through the encoder.

        All their captions go through it at once: it is small, and a GPU would wait for its caller.
        """
        drawn = [self._choose() for _ in range(count)]
        ids = [self._captions(part, rows) for _, part, rows in drawn]
        prompts = self._prompts.embed_ids(torch.cat(ids)).split([len(part) for part in ids])
        return [(*one, prompt) for one, prompt in zip(drawn, prompts, strict=True)]

    def _choose(self) -> tuple[Shape, Part, Tensor]:
        shapes = [shape for shape in SHAPES if self._files[shape.name]]
        # a shape's share is of samples, and long samples come in small batches
        shares = [shape.share * self._more.get(shape.name, 1.0) for shape in shapes]
        often = [one / self._size(shape) for one, shape in zip(shares, shapes, strict=True)]
        shape = self._rng.choices(shapes, often)[0]
        file = self._rng.choice(self._files[shape.name])
        if file not in self._parts:
            self._parts[file] = load_part(file).to(self._device)
        part = self._parts[file]
        order = torch.randperm(PART, generator=self._noise, device=self._device)
        return shape, part, order[: self._size(shape)]

    def _size(self, shape: Shape) -> int:
        return max(4, min(PART, self._tokens // (shape.tokens + text.TOKENS)))

    def _captions(self, part: Part, rows: Tensor) -> Tensor:
        """(B, text.TOKENS): one of each example's captions, or that of no words."""
        wordings = part.prompts.shape[1]
        chosen = torch.randint(wordings, (len(rows),), generator=self._noise, device=self._device)
        is_unsaid = self._uniform(len(rows), 1) < UNSAID
        return torch.where(is_unsaid, self._unsaid, part.prompts[rows, chosen].long())

    def _uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self._noise, device=self._device)

    def _noised(
        self, shape: Shape, target: Tensor, references: Tensor, part: Part, rows: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        count = len(target)
        noise = tie(
            torch.randn(target.shape, generator=self._noise, device=self._device),
            part.lots[rows],
            self._noise,
            self.loudness,
        )
        sigma = self._sigmas(count).view(-1, 1, 1)
        noisy = (1 - sigma) * target + sigma * noise
        velocity = noise - target
        if shape.task == "edit":
            # On the straight way from the source, noised to the level `first`, to the target.
            # A weak strength asks for a part of the change; all or nothing of it where the two do
            # not lie on each other and half of each would be seen double.
            first = LEAST_STRENGTH + (1 - LEAST_STRENGTH) * self._uniform(count, 1, 1)
            there = torch.where(self._uniform(count, 1, 1) < 0.3, 1.0, self._uniform(count, 1, 1))
            level = (first * there).clamp_min(0.02)
            asked = ((first - LEAST_STRENGTH) / (FULL_STRENGTH - LEAST_STRENGTH)).clamp(0, 1)
            asked = torch.where(part.on_grid[rows].view(-1, 1, 1), asked, asked.round())
            goal = references + asked * (target - references)
            kept = (1 - first) / first
            bridge = level * kept * references + (1 - level - level * kept) * goal + level * noise
            chosen = self._uniform(count, 1, 1) < FROM_SOURCE
            noisy = torch.where(chosen, bridge, noisy)
            velocity = torch.where(chosen, noise - goal + kept * (references - goal), velocity)
            sigma = torch.where(chosen, level, sigma)
        return noisy, sigma.view(-1), velocity

    def _sigmas(self, count: int) -> Tensor:
        """Mostly the noise levels that a few steps visit; some of every level."""
        u = self._uniform(count)
        choice = self._uniform(count)
        sigma = torch.where(choice < 0.85, shifted(u), u.clamp_min(0.02))
        return torch.where(choice < 0.3, 1.0, sigma)
