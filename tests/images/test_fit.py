from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iris.images.fit import Exact, Within, fitted_size, most_pixels
from iris.images.header import Unusable

EDIT = Within(704, 704 * 704, 16)


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((704, 704), (704, 704)),
        ((705, 705), (704, 704)),
        ((1408, 704), (704, 352)),
        ((704, 1408), (352, 704)),
        ((1000, 1000), (704, 704)),
        ((770, 771), (688, 704)),
        ((16, 16), (16, 16)),
        ((31, 17), (16, 16)),
        ((16_384, 1_024), (704, 32)),
        ((600, 400), (592, 400)),
    ],
)
def test_an_image_is_scaled_down_with_its_aspect_and_floored(
    size: tuple[int, int], fitted: tuple[int, int]
) -> None:
    assert fitted_size(*size, EDIT) == fitted


def test_an_area_below_the_square_of_the_side_limits_too() -> None:
    assert fitted_size(1000, 1000, Within(1000, 500 * 500, 1)) == (500, 500)
    assert fitted_size(2000, 500, Within(2000, 500 * 500, 1)) == (1000, 250)


@given(
    st.integers(1, 16_384),
    st.integers(1, 16_384),
    st.integers(16, 2_000),
    st.integers(256, 2_000**2),
    st.sampled_from([1, 8, 16, 32]),
)
def test_no_size_is_over_a_limit_off_the_grid_enlarged_or_bent(
    width: int, height: int, side: int, area: int, multiple: int
) -> None:
    fit = Within(side, area, multiple)
    try:
        w, h = fitted_size(width, height, fit)
    except Unusable:
        # Only what is too small already, or once scaled by the tighter of the two limits.
        scale = min(1, side / max(width, height), math.sqrt(area / (width * height)))
        assert min(width, height) * scale < multiple + 1e-6
        return
    assert 0 < w <= min(width, side)
    assert 0 < h <= min(height, side)
    assert w * h <= min(area, most_pixels(fit))
    assert w % multiple == h % multiple == 0
    # Within one step of the grid (and one pixel of flooring) of the true aspect.
    assert abs(w * height - h * width) <= (multiple + 1) * max(width, height)


@pytest.mark.parametrize("size", [(15, 768), (768, 15), (1, 1), (12_000, 200)])
def test_a_side_that_floors_to_nothing_is_refused_with_its_size(size: tuple[int, int]) -> None:
    with pytest.raises(Unusable, match=f"{size[0]}x{size[1]} px.*at least 16 px"):
        fitted_size(*size, EDIT)


def test_an_exact_size_is_exact() -> None:
    assert fitted_size(123, 4567, Exact(640, 32)) == (640, 32)
    assert most_pixels(Exact(640, 32)) == 640 * 32


def test_limits_that_mean_nothing_are_not_built() -> None:
    with pytest.raises(ValueError, match="positive"):
        Within(704, 0, 16)
    with pytest.raises(ValueError, match="at least 1 px"):
        Exact(0, 5)
