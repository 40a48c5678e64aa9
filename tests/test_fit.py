import itertools

import pytest

from iris.errors import ConfigError
from iris.fit import TEXT_ENCODER, TRANSFORMER, Fit, ModelSize, check_fits, fits_for

GIB = 1 << 30
# FLUX.2-klein-4B by its published configuration
KLEIN = ModelSize(
    blocks=3_680_000_000,
    largest_block=245_000_000,
    transformer_rest=195_000_000,
    text_layers=2_725_000_000,
    largest_text_layer=101_000_000,
    text_embedding=389_000_000,
    autoencoder=84_000_000,
)
WAYS = [Fit(*way) for way in itertools.product(TRANSFORMER, TEXT_ENCODER)]


@pytest.mark.parametrize("fit", WAYS)
def test_no_way_takes_more_than_the_whole(fit):
    assert KLEIN.device_bytes(fit) <= KLEIN.device_bytes(Fit())


@pytest.mark.parametrize(
    ("memory_gib", "first"),
    [
        (24, Fit("whole", "whole")),
        (16, Fit("whole", "int8")),
        (10, Fit("fp8", "int8")),
        (8, Fit("fp8", "offload")),
        (6, Fit("offload", "offload")),
    ],
)
def test_the_fastest_way_that_fits_comes_first(memory_gib, first):
    assert next(fits_for(KLEIN, memory_gib * GIB, has_fp8=True)) == first


def test_float8_is_not_proposed_where_there_is_none():
    ways = list(fits_for(KLEIN, 10 * GIB, has_fp8=False))
    assert ways[0] == Fit("int8", "offload")
    assert all(way.transformer != "fp8" for way in ways)


def test_too_little_memory_names_the_need_the_memory_and_what_fits():
    with pytest.raises(ConfigError) as refused:
        check_fits("klein-4b", KLEIN, Fit(), 10 * GIB, has_fp8=True)
    message = refused.value.message
    assert "klein-4b needs about 16.2 GiB" in message
    assert "10.0 GiB are free" in message
    assert "IRIS_TRANSFORMER=fp8 IRIS_TEXT_ENCODER=int8" in message


def test_where_nothing_fits_it_says_so():
    with pytest.raises(ConfigError, match="larger GPU"):
        check_fits("klein-4b", KLEIN, Fit(), 1 * GIB, has_fp8=True)


def test_enough_memory_is_no_error():
    check_fits("klein-4b", KLEIN, Fit(), 24 * GIB, has_fp8=True)
