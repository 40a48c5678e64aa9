"""How long work takes on this machine: measured at start, corrected with every step. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

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


_PACE_S = 1.0  # of work without a break that an observation of the pace takes
_PACE_WEIGHT = 0.2
_PACE_LIMITS = (0.5, 4.0)


@dataclass(slots=True)
class Pace:
    """Seconds of the clock that a predicted second of work takes, all told.

    The parts of a picture may be predicted well and pictures still take longer: between the parts
    there are locks and queues, and other processes of the host have their share of it. Or
    shorter, because pictures share a pass. So what is got done while there is work is held
    against the clock.
    """

    value: float = 1.0
    _since_s: float | None = None
    _done_s: float = 0.0

    def begin(self, now_s: float) -> None:
        """There is work."""
        if self._since_s is None:
            self._since_s, self._done_s = now_s, 0.0

    def end(self) -> None:
        """There is none any more."""
        self._since_s = None

    def work(self, predicted_s: float, now_s: float) -> None:
        """So much has been done."""
        if self._since_s is None:
            return
        self._done_s += predicted_s
        passed_s = now_s - self._since_s
        if passed_s >= _PACE_S and self._done_s > 0:
            low, high = _PACE_LIMITS
            observed = min(max(passed_s / self._done_s, low), high)
            self.value += _PACE_WEIGHT * (observed - self.value)
            self._since_s, self._done_s = now_s, 0.0


@dataclass(slots=True)
class CostModel:
    """Predicts the seconds of a picture's parts on this machine, and what they take all told."""

    encode: Line  # units: pixels of the source images; what is fixed is the prompt
    step: Line  # units: tokens in one forward pass
    decode: Line  # units: pixels
    pace: Pace = field(default_factory=Pace)
    decode_left_after: Sequence[float] = ()  # share of a decoding that is left after each piece

    @classmethod
    def unmeasured(cls) -> CostModel:
        per_pixel = Line(per_unit_s=1e-6)
        return cls(encode=Line(per_unit_s=1e-6), step=Line(), decode=per_pixel)

    def picture_s(
        self,
        tokens: int,
        passes: int,
        steps_left: int,
        pixels: int,
        image_pixels: int = 0,
        decode_left: float = 1.0,
    ) -> float:
        """Seconds, by the clock, of the work until a picture is pixels.

        image_pixels: of source images that are still to be encoded.
        decode_left: share of the decoding that is still to be done.
        """
        seconds = steps_left * passes * self.step.predict_s(tokens)
        seconds += decode_left * self.decode.predict_s(pixels)
        if image_pixels:
            seconds += self.encode.predict_s(image_pixels)
        return seconds * self.pace.value

    def decode_left(self, pieces: int) -> float:
        """Share of a decoding that is left when so many pieces of it are done."""
        if not pieces:
            return 1.0
        return self.decode_left_after[pieces - 1] if pieces <= len(self.decode_left_after) else 0.0
