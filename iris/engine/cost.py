"""How long work takes on this machine: measured at start, corrected with every step. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

_WEIGHT = 0.1  # of a new observation; about the last ten count


@dataclass(slots=True)
class Line:
    """seconds = (fixed_s + per_unit_s * units) * drift, where drift follows the observations."""

    fixed_s: float = 0.0
    per_unit_s: float = 1e-4
    drift: float = 1.0

    def predict_s(self, units: float) -> float:
        return (self.fixed_s + self.per_unit_s * units) * self.drift

    def observe(self, units: float, seconds: float) -> None:
        expected = self.fixed_s + self.per_unit_s * units
        if expected > 0:
            self.drift += _WEIGHT * (seconds / expected - self.drift)

    def calibrate(self, points: Sequence[tuple[float, float]]) -> None:
        """Lay the line through two (units, seconds); a slope below zero is noise."""
        (small, small_s), (large, large_s) = points
        slope = max((large_s - small_s) / (large - small), 0.0)
        fixed = small_s - slope * small
        if fixed < 0:
            fixed, slope = 0.0, large_s / large
        self.fixed_s, self.per_unit_s, self.drift = fixed, slope, 1.0


@dataclass(slots=True)
class CostModel:
    """Predicts the seconds of a picture's parts on this machine."""

    encode: Line  # units: pixels of the source images; what is fixed is the prompt
    step: Line  # units: tokens in one forward pass
    decode: Line  # units: pixels

    @classmethod
    def unmeasured(cls) -> CostModel:
        per_pixel = Line(per_unit_s=1e-6)
        return cls(encode=Line(per_unit_s=1e-6), step=Line(), decode=per_pixel)

    def picture_s(self, tokens: int, passes: int, steps_left: int, pixels: int) -> float:
        """Seconds of engine time until a picture with `steps_left` steps to go is pixels."""
        return steps_left * passes * self.step.predict_s(tokens) + self.decode.predict_s(pixels)
