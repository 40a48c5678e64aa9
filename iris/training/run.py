"""One training: from pictures to a LoRA file, with a progress bar, samples, and going on."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from iris.engine.loader import (
    Components,
    choose_device,
    choose_dtype,
    load_components,
    quieten,
    use_threads,
)
from iris.errors import ConfigError
from iris.fit import Fit
from iris.training import adapter
from iris.training.lesson import Lesson, loss_of, prepare
from iris.training.pictures import find_examples
from iris.training.samples import sample_grid, sampler, save

_STATE = "state.pt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that decides what comes out. A run that goes on must have the same."""

    base: str  # the tag of the model that is trained on
    images: Path
    captions: Path | None
    trigger: str
    rank: int
    steps: int
    rate: float
    batch: int  # pictures whose gradients are added up for a step
    side_px: int
    seed: int
    sample_every: int  # steps; 0 = none
    sample_steps: int

    def fixed(self) -> dict[str, object]:
        """What may not change while a run goes on, as JSON has it; more steps may be asked for."""
        values = dataclasses.asdict(self)
        return {
            key: str(value) if isinstance(value, Path) else value
            for key, value in values.items()
            if key not in ("steps", "sample_every", "sample_steps")
        }


def train(
    recipe: Recipe,
    base: Path,
    folder: Path,
    say: Callable[[str], None],
    *,
    device: str,
    dtype: str,
    threads: int,
) -> Path:
    """Train in `folder`, going on from what is there; returns the folder with the LoRA's file.

    base: the model's folder.

    Raises:
        ConfigError: the run in `folder` was begun with another recipe.
        StoreError: a picture or the model cannot be read.
    """
    quieten()
    use_threads(threads or len(os.sched_getaffinity(0)))
    folder.mkdir(parents=True, exist_ok=True)
    _same_recipe(recipe, folder)
    place = choose_device(device)
    # Gradients of small adapters drown in the rounding of bfloat16 on a CPU.
    precision = torch.float32 if place.type == "cpu" else choose_dtype(dtype, place)
    say(f"loading {recipe.base}")
    components = load_components(base, place, precision, Fit(text_encoder=_text_fit(place)))
    examples = find_examples(recipe.images, recipe.captions, recipe.trigger)
    say(f"encoding {len(examples)} pictures")
    lessons, prompts = prepare(examples, components, recipe.side_px)
    components = dataclasses.replace(components, text_encoder=None)  # its memory is needed
    if place.type == "cuda":
        torch.cuda.empty_cache()
    run = _Run(recipe, components, lessons, prompts, folder)
    run.go_on()
    return adapter.write(components.transformer, run.name, run.targets, folder / "style").parent


class _Run:
    name = "style"

    def __init__(
        self,
        recipe: Recipe,
        components: Components,
        lessons: list[Lesson],
        prompts: dict[str, Tensor],
        folder: Path,
    ) -> None:
        self._recipe = recipe
        self._model: Any = components.transformer
        self._components = components
        self._lessons = lessons
        self._prompts = prompts
        self._folder = folder
        torch.manual_seed(recipe.seed)
        self.targets = adapter.adapt(self._model, self.name, recipe.rank)
        self._trained = [p for p in self._model.parameters() if p.requires_grad]
        for parameter in self._trained:
            parameter.data = parameter.data.float()
        if components.device.type == "cuda":
            self._model.enable_gradient_checkpointing()
        self._optimiser = torch.optim.AdamW(
            self._trained, recipe.rate, betas=(0.9, 0.99), weight_decay=0.0
        )
        self._steps = 0
        self._sampler = sampler(components)
        self._load()

    def go_on(self) -> None:
        """Take the steps that are left."""
        recipe, average = self._recipe, 0.0
        first = self._steps
        bar = tqdm(total=recipe.steps, initial=first, unit="step", desc="training", mininterval=1.0)
        with bar:
            while self._steps < recipe.steps:
                loss = self._step()
                average += (loss - average) / min(50, self._steps - first)
                bar.update()
                bar.set_postfix(loss=f"{average:.4f}", refresh=False)
                every = recipe.sample_every
                if (every and self._steps % every == 0) or self._steps == recipe.steps:
                    self._save()
                    if every:
                        self._sample()

    def _step(self) -> float:
        """One step of the optimiser. What is drawn depends on its number and the seed alone."""
        recipe = self._recipe
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + self._steps)
        left = recipe.steps - self._steps
        warm = min(1.0, (self._steps + 1) / max(1, recipe.steps // 20))
        cool = min(1.0, left / max(1, recipe.steps // 5))
        for group in self._optimiser.param_groups:
            group["lr"] = recipe.rate * min(warm, cool)
        total = 0.0
        for _ in range(recipe.batch):
            index = int(torch.randint(len(self._lessons), (), generator=generator))
            loss = loss_of(
                self._model,
                self._lessons[index],
                self._components.scheduler_config,
                generator,
                self._components.device,
            )
            (loss / recipe.batch).backward()  # type: ignore[no-untyped-call]
            total += loss.item() / recipe.batch
        nn.utils.clip_grad_norm_(self._trained, 1.0)
        self._optimiser.step()
        self._optimiser.zero_grad()
        self._steps += 1
        return total

    def _sample(self) -> None:
        side = self._recipe.side_px // self._components.pixels_per_token
        sheet = sample_grid(
            self._sampler,
            self.name,
            self._prompts,
            side_px=side * self._components.pixels_per_token,
            num_inference_steps=self._recipe.sample_steps,
            seed=self._recipe.seed,
        )
        save(sheet, self._folder / "samples" / f"step-{self._steps:06}.png")

    def _save(self) -> None:
        state = {
            "adapter": adapter.state_of(self._model, self.name),
            "optimiser": self._optimiser.state_dict(),
            "steps": self._steps,
        }
        partial = self._folder / f"{_STATE}.partial"
        torch.save(state, partial)
        partial.rename(self._folder / _STATE)

    def _load(self) -> None:
        path = self._folder / _STATE
        if path.exists():
            state = torch.load(path, weights_only=True, map_location="cpu")
            adapter.take(self._model, self.name, state["adapter"])
            self._optimiser.load_state_dict(state["optimiser"])
            self._steps = state["steps"]


def _same_recipe(recipe: Recipe, folder: Path) -> None:
    path = folder / "recipe.json"
    if path.exists() and (folder / _STATE).exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        for key, value in recipe.fixed().items():
            if before.get(key) != value:
                raise ConfigError(
                    f"The training in {folder} was begun with {key}={before.get(key)!r}, not "
                    f"{value!r}. Give the same, or begin anew with --fresh."
                )
    path.write_text(json.dumps(recipe.fixed(), indent=2) + "\n", encoding="utf-8")


def _text_fit(place: torch.device) -> str:
    """On a GPU the text encoder, used once a caption, leaves the room to the training."""
    return "offload" if place.type == "cuda" else "whole"
