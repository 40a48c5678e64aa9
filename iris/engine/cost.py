"""How long work takes on this machine: measured at start, corrected with every step. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

_WEIGHT = 0.1  # of a new observation; about the last ten count
_MOST_OFF = 4.0  # times what is predicted; what is further off was held up by something else
_MOST_TELLING = 2.0  # times what is predicted; what is further off does not turn a line
_LEAST_SPREAD = 0.1  # of sizes, of their mean, that tells what is fixed from what is not
_BACK = 0.02  # of the way back, an observation
_LEAST_SLOPE = 0.1  # share of a large piece of work that grows with its size, at least


@dataclass(slots=True)
class Line:
    """seconds = (fixed_s + per_unit_s * units) * drift.

    Drift follows the observations. The line turns where large and small work say otherwise, and
    back to how it was laid where all work is of one size, which does not tell.
    """

    fixed_s: float = 0.0
    per_unit_s: float = 1e-4
    drift: float = 1.0
    _laid: tuple[float, float] = (0.0, 0.0)  # fixed_s and per_unit_s at first
    _mean: float = 0.0  # of the units observed
    _spread: float = 0.0  # squared

    def __post_init__(self) -> None:
        self._laid = self.fixed_s, self.per_unit_s

    def predict_s(self, units: float) -> float:
        return (self.fixed_s + self.per_unit_s * units) * self.drift

    def observe(self, units: float, seconds: float) -> None:
        expected = self.fixed_s + self.per_unit_s * units
        if expected <= 0:
            return
        low, high = self.drift / _MOST_OFF, self.drift * _MOST_OFF
        ratio = min(max(seconds / expected, low), high)
        self._turn(units, expected, ratio / self.drift)
        self.drift += _WEIGHT * (ratio - self.drift)

    def _turn(self, units: float, expected_s: float, off: float) -> None:
        """Turn the line about the mean size, by one observation that is off by this factor."""
        if not self._mean:
            self._mean = units
        away = units - self._mean
        self._mean += _WEIGHT * away
        self._spread += _WEIGHT * (away * away - self._spread)
        middle_s = self.fixed_s + self.per_unit_s * self._mean
        slope = self.per_unit_s
        if self._spread < (_LEAST_SPREAD * self._mean) ** 2:
            fixed_s, per_unit_s = self._laid
            laid = per_unit_s / (fixed_s + per_unit_s * self._mean)
            slope += _BACK * (laid * middle_s - slope)
        elif 1 / _MOST_TELLING < off < _MOST_TELLING:
            slope += _WEIGHT * (off - 1.0) * expected_s * away / (self._spread + away * away)
        # what is fixed is not below nothing, and not all of it
        most, least = middle_s / self._mean, _LEAST_SLOPE * middle_s / self._mean
        self.per_unit_s = min(max(slope, least), most)
        self.fixed_s = middle_s - self.per_unit_s * self._mean

    def as_laid(self) -> Line:
        """The same before anything was observed."""
        return Line(*self._laid)

    def calibrate(self, points: Sequence[tuple[float, float]]) -> None:
        """Lay the line through two (units, seconds), as far as they make sense."""
        (small, small_s), (large, large_s) = points
        slope = (large_s - small_s) / (large - small)
        slope = min(max(slope, _LEAST_SLOPE * large_s / large), large_s / large)
        self.fixed_s, self.per_unit_s, self.drift = large_s - slope * large, slope, 1.0
        self._laid = self.fixed_s, self.per_unit_s
        self._mean = self._spread = 0.0


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
        image_pixels: int | None = None,
        decode_left: float = 1.0,
    ) -> float:
        """Seconds, by the clock, of the work until a picture is pixels.

        image_pixels: of source images; None where they and the prompt are encoded.
        decode_left: share of the decoding that is still to be done.
        """
        seconds = steps_left * passes * self.step.predict_s(tokens)
        seconds += decode_left * self.decode.predict_s(pixels)
        if image_pixels is not None:
            seconds += self.encode.predict_s(image_pixels)
        return seconds * self.pace.value

    def as_calibrated(self) -> CostModel:
        """The same before anything was observed."""
        encode, step, decode = (line.as_laid() for line in (self.encode, self.step, self.decode))
        return CostModel(encode, step, decode, decode_left_after=self.decode_left_after)

    def decode_left(self, pieces: int) -> float:
        """Share of a decoding that is left when so many pieces of it are done."""
        if not pieces:
            return 1.0
        return self.decode_left_after[pieces - 1] if pieces <= len(self.decode_left_after) else 0.0
