"""Makes pictures with the project's own engine code, or with the renderer as an oracle."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from evaluation.measures import Image
from evaluation.view import scaled, view
from iris.engine.activity import Activity
from iris.engine.cache import Cache
from iris.engine.conditioning import Conditioner
from iris.engine.denoiser import Denoiser, to_pixels
from iris.engine.encoder import ImageEncoder
from iris.engine.loader import choose_dtype, load_components, quieten, use_threads
from iris.engine.lora import install_styles
from iris.engine.pointwise import Pointwise
from iris.jobs import EditJob, GenerateJob, Job, Pixels
from world.render import render
from world.spec import Scene

STEPS = 4
GUIDANCE = 1.0
EDIT_STRENGTH = 0.75
_TOGETHER = 16  # prompts that go through the text encoder at once
_ORACLE_FULL = 0.75  # the edit strength from which the oracle shows the target alone


@dataclass(frozen=True, slots=True)
class Task:
    """One picture that is wanted, as plain data: its repr says all about it.

    `target` is what a right answer shows; only the oracle and the scoring look at it.
    """

    prompt: str
    target: Scene
    width: int
    height: int
    seed: int
    steps: int = STEPS
    guidance: float = GUIDANCE
    style: str | None = None
    style_strength: float = 0.0
    sources: tuple[Scene, ...] = ()
    first: Task | None = None  # instead of sources: the picture that the maker makes of this
    source_size: tuple[int, int] | None = None  # None: the picture's own, 512x512 of a composition
    strength: float | None = None  # of an edit; None with sources is a composition
    is_foreign: bool = False  # the sources were never painted at the model's scale

    def images(self) -> list[Image]:
        """The sources as pictures. That of an edit is brought to the picture's size."""
        own = (self.width, self.height)
        size = self.source_size or ((512, 512) if self.strength is None else own)
        if self.is_foreign:
            return [render(scene, *size) for scene in self.sources]
        pictures = [view(scene, *size) for scene in self.sources]
        return pictures if self.strength is None else [scaled(one, own) for one in pictures]

    def job(self, images: Sequence[Image]) -> Job:
        common = {
            "request_id": uuid.uuid4().hex,
            "owner": "evaluation",
            "prompt": self.prompt,
            "width_px": self.width,
            "height_px": self.height,
            "num_inference_steps": self.steps,
            "seed": self.seed,
            "guidance_scale": self.guidance,
            "lora": self.style,
            "lora_strength": self.style_strength,
            "deadline_s": 3600.0,
        }
        if not images:
            return GenerateJob(**common)
        pixels = tuple(_pixels(image) for image in images)
        return EditJob(**common, images=pixels, strength=self.strength)


class Maker(Protocol):
    """Whatever makes pictures of tasks."""

    def make(self, tasks: Sequence[Task]) -> Iterator[Image]: ...

    def round_trip(self, picture: Image) -> Image:
        """The picture through the autoencoder and back."""

    def fingerprint(self) -> str:
        """Changes when the pictures could."""


class Model:
    """A model run as the service runs it; the folder holds weights/ and, if any, styles/NAME/."""

    def __init__(self, folder: Path, threads: int, dtype: str = "auto") -> None:
        quieten()
        use_threads(threads)
        weights = folder / "weights"
        folders = sorted((folder / "styles").glob("*/"))
        self._files = sorted(weights.glob("**/*.*"))
        self._files += [file for folder in folders for file in sorted(folder.glob("*.safetensors"))]
        cpu = torch.device("cpu")
        self._components = load_components(weights, cpu, choose_dtype(dtype, cpu))
        styles = install_styles(
            self._components.transformer, {folder.name: folder for folder in folders}
        )
        self._denoiser = Denoiser(self._components, styles)
        self._encoder = ImageEncoder(self._components, Pointwise(compiled=False))
        self._conditioner = Conditioner(self._components, self._denoiser, Cache(0), Activity())

    def make(self, tasks: Sequence[Task]) -> Iterator[Image]:
        for start in range(0, len(tasks), _TOGETHER):
            jobs = [task.job(self._images(task)) for task in tasks[start : start + _TOGETHER]]
            for row in self._conditioner.rows(jobs):
                if isinstance(row, Exception):
                    raise row
                while not row.is_done:
                    self._denoiser.step([row])
                yield _array(to_pixels(self._denoiser.decode(row)))

    def latents(self, tasks: Sequence[Task]) -> list[torch.Tensor]:
        """(1, tokens, channels) of each picture, as decoded; all take their steps together."""
        rows = self._conditioner.rows([task.job(self._images(task)) for task in tasks])
        for row in rows:
            if isinstance(row, Exception):
                raise row
        while going := [row for row in rows if not row.is_done]:
            self._denoiser.step(going)
        return [row.latents for row in rows]

    def _images(self, task: Task) -> list[Image]:
        if task.first is None:
            return task.images()
        [picture] = self.make([task.first])
        return [scaled(picture, (task.width, task.height))]

    def round_trip(self, picture: Image) -> Image:
        height, width = picture.shape[:2]
        empty = Scene("studio", "day", ())
        [row] = self._conditioner.rows([Task("", empty, width, height, seed=0).job([])])
        if isinstance(row, Exception):
            raise row
        row.latents = self._encoder.encode(_pixels(picture), row.canvas)
        return _array(to_pixels(self._denoiser.decode(row)))

    def fingerprint(self) -> str:
        return digest(self._files)


class Oracle:
    """Renders what each task asks for: what a perfect model would score."""

    def make(self, tasks: Sequence[Task]) -> Iterator[Image]:
        for task in tasks:
            target = replace(task.target, style=task.style, amount=task.style_strength)
            picture = view(target, task.width, task.height)
            if task.strength is not None and task.strength < _ORACLE_FULL:
                share = task.strength / _ORACLE_FULL
                mixed = self._source(task) * (1.0 - share) + picture * share
                picture = mixed.round().astype(np.uint8)
            yield picture

    def _source(self, task: Task) -> Image:
        if task.first is None:
            return task.images()[0]
        [picture] = self.make([task.first])
        return scaled(picture, (task.width, task.height))

    def round_trip(self, picture: Image) -> Image:
        return picture

    def fingerprint(self) -> str:
        return "oracle"


def digest(files: Iterable[Path]) -> str:
    """A short hash of what the files hold."""
    found = hashlib.sha256()
    for file in files:
        found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()[:12]


def _pixels(picture: Image) -> Pixels:
    return Pixels(picture.shape[1], picture.shape[0], picture.tobytes())


def _array(pixels: Pixels) -> Image:
    values = np.frombuffer(bytearray(pixels.rgb), dtype=np.uint8)
    return values.reshape(pixels.height_px, pixels.width_px, 3)
