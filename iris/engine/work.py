"""A picture as the scheduler sees it. No torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Work:
    """One picture. Set by the engine; `steps_left` counts down."""

    ticket_id: str
    tokens: int  # in one forward pass: prompt + picture + references
    passes: int  # forward passes a step: 2 with guidance
    steps_left: int
    pixels: int
    image_pixels: int | None  # of the source images; None once they and the prompt are encoded
    admitted_at_s: float  # on the engine's monotonic clock
    deadline_at_s: float
    owner: str = ""  # whoever asks for it
    total_s: float = 0.0  # of work when it came in; set by `offer`
    has_begun: bool = False
    decode_left: float = 1.0  # share of the decoding; `decoded_a_piece` counts it down
