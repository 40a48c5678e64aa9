"""The dataclasses every layer shares, and who sets which field.

The front (iris.api) builds a job from a validated request; the engine answers an `Admission` and,
for a `Ticket`, later an `Outcome`. They cross a process boundary, so they hold plain values only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

RefusalCode = Literal["backend_busy", "backend_unavailable", "backend_timeout", "backend_error"]


@dataclass(frozen=True, slots=True)
class Pixels:
    """An 8-bit sRGB picture.

    rgb: height_px * width_px * 3 bytes, row-major, R G B.
    """

    width_px: int
    height_px: int
    rgb: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateJob:
    """One picture to be made from a prompt. Every field is set by the front, in api/schemas.py."""

    request_id: str
    owner: str  # the key's id; engine caches are kept apart by it
    prompt: str  # stripped, 1..2000 code points
    width_px: int  # multiple of 16
    height_px: int  # multiple of 16
    num_inference_steps: int  # 1..50
    seed: int  # 0..2**63-1; a random one was already drawn
    guidance_scale: float  # 1.0 = one pass, higher = a second, unconditional pass
    lora: str | None  # name of a registered style; None = no style
    lora_strength: float  # 0.0..1.5
    deadline_s: float  # seconds left when the job is handed to the engine


@dataclass(frozen=True, slots=True, kw_only=True)
class EditJob(GenerateJob):
    """One picture to be made from a prompt and 1..5 images.

    images: in the order of the request, already decoded, sides multiples of 16.
    strength: 0.0..1.0 for the single source of an edit, which then has exactly the size of the
    picture; None when the images are references to compose from.
    mask: one byte a pixel of the picture, row-major: 255 = make it anew, 0 = keep the first
    image's, which then has exactly the size of the picture. None = everything may change.
    """

    images: tuple[Pixels, ...]
    strength: float | None
    mask: bytes | None = None


Job = GenerateJob | EditJob


def without_pixels(job: Job) -> Job:
    """The same job, as large on paper and small on the wire: enough to say how long it takes."""
    if not isinstance(job, EditJob):
        return replace(job, prompt="")
    images = tuple(Pixels(image.width_px, image.height_px, b"") for image in job.images)
    # that there is a mask decides how the images are read
    return replace(job, prompt="", images=images, mask=None if job.mask is None else b"")


@dataclass(frozen=True, slots=True)
class Ticket:
    """The engine's promise to make a picture; set by the engine at admission."""

    ticket_id: str
    predicted_s: float  # seconds from admission to the finished picture, estimated


@dataclass(frozen=True, slots=True)
class Quote:
    """What the engine would promise for a picture now; set by the engine."""

    predicted_s: float  # seconds until it would be finished
    own_s: float  # seconds of them that are its own work


@dataclass(frozen=True, slots=True)
class Refusal:
    """The engine's refusal to start a picture; nothing was run and nothing is owed."""

    code: RefusalCode
    message: str
    retry_after_s: float | None = None


Admission = Ticket | Refusal


@dataclass(frozen=True, slots=True)
class Usage:
    """What a picture took, in tokens. Set by the engine.

    Image tokens are cells of the model's own token grid (`pixels_per_token` squared pixels each):
    of a picture as it is painted, of an image as it is read.
    """

    input_text_tokens: int
    input_image_tokens: int
    output_image_tokens: int


@dataclass(frozen=True, slots=True)
class Picture:
    """A finished picture. Set by the engine."""

    pixels: Pixels
    seed: int
    usage: Usage
    queue_s: float  # admission to first step
    inference_s: float  # first step to pixels


@dataclass(frozen=True, slots=True)
class Failure:
    """A picture that was admitted and will not come."""

    code: RefusalCode
    message: str


Outcome = Picture | Failure


@dataclass(frozen=True, slots=True)
class EngineHealth:
    """What the engine says of itself. Set by the engine."""

    ready: bool  # takes new work
    alive: bool  # its threads run and its device answers
    waiting: int
    running: int
    detail: str  # one plain sentence
