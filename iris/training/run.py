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
from iris.engine.memory import is_out_of_memory
from iris.errors import ConfigError, StoreError
from iris.fit import Fit
from iris.training import adapter
from iris.training.folder import unwritten, whole
from iris.training.lesson import Lesson, loss_of, prepare
from iris.training.pictures import Example, find_examples
from iris.training.samples import sample_grid, sampler, save
from iris.training.stop import stopped_as_by_hand

_STATE = "state.pt"
_SAVE_EVERY = 250  # steps, whatever is sampled


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
        ConfigError: the run in `folder` was begun with another recipe, there is no such device, or
            the recipe's size is below what the model can learn.
        StoreError: a picture or the model cannot be read, `folder` cannot be written, or the memory
            does not suffice.
        KeyboardInterrupt: it was told to end; what was learnt is saved.
    """
    quieten()
    use_threads(threads or len(os.sched_getaffinity(0)))
    place = choose_device(device)
    if place.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(
            f"IRIS_DEVICE={device}, and torch finds no GPU that it can use. Set IRIS_DEVICE=cpu, "
            "or install a torch for this GPU."
        )
    examples = find_examples(recipe.images, recipe.captions, recipe.trigger)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise unwritten(folder, error) from error
    _same_recipe(recipe, folder)
    run: _Run | None = None
    try:
        run = _begin(recipe, base, folder, examples, say, place, dtype)
        with stopped_as_by_hand():
            run.go_on()
        return adapter.write(run.model, run.name, run.targets, folder / "style").parent
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        saved_steps = None if run is None else run.saved_steps
        raise _too_little_memory(recipe, place, folder, saved_steps) from error


def _begin(
    recipe: Recipe,
    base: Path,
    folder: Path,
    examples: list[Example],
    say: Callable[[str], None],
    place: torch.device,
    dtype: str,
) -> _Run:
    """Load the model, read the pictures and what was saved in the folder."""
    # Gradients of small adapters drown in the rounding of bfloat16 on a CPU.
    precision = torch.float32 if place.type == "cpu" else choose_dtype(dtype, place)
    say(f"loading {recipe.base}")
    components = load_components(base, place, precision, Fit(text_encoder=_text_fit(place)))
    if recipe.side_px < components.pixels_per_token:
        raise ConfigError(
            f"--size {recipe.side_px} must be at least {components.pixels_per_token}: the model "
            "paints in squares of so many pixels."
        )
    say(f"encoding {len(examples)} pictures")
    lessons, prompts = prepare(examples, components, recipe.side_px)
    components = dataclasses.replace(components, text_encoder=None)  # its memory is needed
    if place.type == "cuda":
        torch.cuda.empty_cache()
    return _Run(recipe, components, lessons, prompts, folder)


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
        self.model: Any = components.transformer
        self._components = components
        self._lessons = lessons
        self._prompts = prompts
        self._folder = folder
        torch.manual_seed(recipe.seed)
        self.targets = adapter.adapt(self.model, self.name, recipe.rank)
        self._trained = [p for p in self.model.parameters() if p.requires_grad]
        for parameter in self._trained:
            parameter.data = parameter.data.float()
        if components.device.type == "cuda":
            self.model.enable_gradient_checkpointing()
        self._optimiser = torch.optim.AdamW(
            self._trained, recipe.rate, betas=(0.9, 0.99), weight_decay=0.0
        )
        self._steps = 0
        self.saved_steps = 0  # those in the state on the disk
        self._is_whole = True  # False while the optimiser has taken half a step
        self._sampler = sampler(components)
        self._load()

    def go_on(self) -> None:
        """Take the steps that are left."""
        try:
            self._take_steps()
        except BaseException as error:
            is_new = self._is_whole and self._steps > self.saved_steps
            if is_new and (isinstance(error, KeyboardInterrupt) or is_out_of_memory(error)):
                self._save()
            raise

    def _take_steps(self) -> None:
        recipe, average = self._recipe, 0.0
        first, every = self._steps, recipe.sample_every
        bar = tqdm(total=recipe.steps, initial=first, unit="step", desc="training", mininterval=1.0)
        with bar:
            while self._steps < recipe.steps:
                loss = self._step()
                average += (loss - average) / min(50, self._steps - first)
                bar.update()
                bar.set_postfix(loss=f"{average:.4f}", refresh=False)
                is_last = self._steps == recipe.steps
                is_shown = every > 0 and (is_last or self._steps % every == 0)
                if is_last or is_shown or self._steps % _SAVE_EVERY == 0:
                    self._save()
                if is_shown:
                    self._sample()

    def _step(self) -> float:
        """One step of the optimiser. What is drawn depends on its number and the seed alone."""
        recipe = self._recipe
        generator = torch.Generator().manual_seed(
            (recipe.seed * 1_000_003 + self._steps) % 2**64  # as many as torch takes
        )
        left = recipe.steps - self._steps
        warm = min(1.0, (self._steps + 1) / max(1, recipe.steps // 20))
        cool = min(1.0, left / max(1, recipe.steps // 5))
        for group in self._optimiser.param_groups:
            group["lr"] = recipe.rate * min(warm, cool)
        total = 0.0
        for _ in range(recipe.batch):
            index = int(torch.randint(len(self._lessons), (), generator=generator))
            loss = loss_of(
                self.model,
                self._lessons[index],
                self._components.scheduler_config,
                generator,
                self._components.device,
            )
            (loss / recipe.batch).backward()  # type: ignore[no-untyped-call]
            total += loss.item() / recipe.batch
        nn.utils.clip_grad_norm_(self._trained, 1.0)
        self._is_whole = False
        self._optimiser.step()
        self._optimiser.zero_grad()
        self._steps += 1
        self._is_whole = True
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
            "adapter": adapter.state_of(self.model, self.name),
            "optimiser": self._optimiser.state_dict(),
            "steps": self._steps,
        }
        with whole(self._folder / _STATE) as file:
            torch.save(state, file)
        self.saved_steps = self._steps

    def _load(self) -> None:
        path = self._folder / _STATE
        if not path.exists():
            return
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
            tensors, optimiser, steps = state["adapter"], state["optimiser"], int(state["steps"])
        except Exception as error:  # of torch, of pickle, of the disk
            raise StoreError(
                f"{path} cannot be read as the state of a training ({type(error).__name__}). "
                "Delete it to begin anew, or put a copy of it there."
            ) from error
        adapter.take(self.model, self.name, tensors)
        self._optimiser.load_state_dict(optimiser)
        self._steps = self.saved_steps = steps


def _same_recipe(recipe: Recipe, folder: Path) -> None:
    path = folder / "recipe.json"
    if path.exists() and (folder / _STATE).exists():
        try:
            before = dict(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise StoreError(
                f"{path} cannot be read, which says what the training was begun with. Delete it "
                "and give the same options as then, or begin anew with --fresh."
            ) from error
        for key, value in recipe.fixed().items():
            if before.get(key) != value:
                raise ConfigError(
                    f"The training in {folder} was begun with {key}={before.get(key)!r}, not "
                    f"{value!r}. Give the same, or begin anew with --fresh."
                )
    with whole(path) as file:
        file.write(f"{json.dumps(recipe.fixed(), indent=2)}\n".encode())


def _too_little_memory(
    recipe: Recipe, place: torch.device, folder: Path, saved_steps: int | None
) -> StoreError:
    """saved_steps: None where it did not come to read what is saved."""
    device = "GPU" if place.type == "cuda" else "memory"
    free = f"free the {device} of what else runs there"
    says = f"The memory of the {place.type.upper()} does not suffice to train on {recipe.base}."
    if saved_steps == 0 or not (folder / _STATE).exists():
        return StoreError(f"{says} Use a smaller --size or --rank, or {free}.")
    step = "what was saved last" if saved_steps is None else f"step {saved_steps}"
    return StoreError(
        f"{says} What was learnt is kept: {free}, and start it again, and it goes on from {step}. "
        "Or begin anew with --fresh and a smaller --size or --rank."
    )


def _text_fit(place: torch.device) -> str:
    """On a GPU the text encoder, used once a caption, leaves the room to the training."""
    return "offload" if place.type == "cuda" else "whole"
