import itertools

import pytest

from iris.errors import ConfigError
from iris.fit import (
    TEXT_ENCODER,
    TRANSFORMER,
    Fit,
    ModelSize,
    check_fits,
    check_host,
    engines_on,
    fits_for,
    fits_instead,
)

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
        check_fits("klein-4b", KLEIN, Fit(), 10 * GIB, 24 * GIB, has_fp8=True)
    message = refused.value.message
    assert "klein-4b needs about 16.2 GiB" in message
    assert "10.0 GiB are free" in message
    assert "IRIS_TRANSFORMER=fp8 IRIS_TEXT_ENCODER=int8" in message


def test_where_nothing_fits_it_says_so():
    with pytest.raises(ConfigError, match="larger GPU"):
        check_fits("klein-4b", KLEIN, Fit(), 1 * GIB, 24 * GIB, has_fp8=True)


def test_enough_memory_is_no_error():
    check_fits("klein-4b", KLEIN, Fit(), 24 * GIB, 24 * GIB, has_fp8=True)


@pytest.mark.parametrize("memory_gib", [6, 10, 16, 24, 32])
@pytest.mark.parametrize("bytes_each", [2, 4])
def test_what_is_proposed_is_never_refused(memory_gib, bytes_each):
    memory = memory_gib * GIB
    for way in fits_for(KLEIN, memory, has_fp8=True, bytes_each=bytes_each):
        check_fits("klein-4b", KLEIN, way, memory, memory, has_fp8=True, bytes_each=bytes_each)


def test_a_refusal_never_proposes_what_it_refuses():
    with pytest.raises(ConfigError) as refused:
        check_fits("k", KLEIN, Fit(), 24 * GIB, 24 * GIB, has_fp8=False, bytes_each=4)
    _, _, advice = refused.value.message.partition("What would fit: ")
    assert advice
    assert Fit().settings not in advice


def test_float8_without_its_units_is_refused_however_much_memory_there_is():
    with pytest.raises(ConfigError) as refused:
        check_fits("k", KLEIN, Fit("fp8", "int8"), 80 * GIB, 80 * GIB, has_fp8=False)
    message = refused.value.message
    assert "needs a GPU with float8 units" in message
    assert "What would fit: IRIS_TRANSFORMER=int8 IRIS_TEXT_ENCODER=int8;" in message
    check_fits("k", KLEIN, Fit("fp8", "int8"), 80 * GIB, 80 * GIB, has_fp8=True)


def test_where_int8_is_too_large_for_the_place_of_float8_what_fits_is_proposed():
    ways = fits_instead(KLEIN, Fit("fp8", "whole"), 11 * GIB, has_fp8=False)
    assert ways[0] == Fit("whole", "offload")


def test_engines_that_share_a_gpu_are_all_counted():
    fit = Fit()
    check_fits("k", KLEIN, fit, 24 * GIB, 24 * GIB, has_fp8=True)
    with pytest.raises(ConfigError) as refused:
        check_fits("k", KLEIN, fit, 24 * GIB, 12 * GIB, has_fp8=True)
    message = refused.value.message
    assert "12.0 GiB are there for each engine" in message
    assert "IRIS_ENGINES" in message
    # and the second is not refused because the first is there already
    check_fits("k", KLEIN, fit, 20 * GIB, 24 * GIB, has_fp8=True)


@pytest.mark.parametrize(
    ("engines", "gpus", "on_each"), [(1, 1, [1]), (2, 1, [2]), (3, 2, [2, 1]), (1, 2, [1, 0])]
)
def test_engines_take_the_gpus_in_turn(engines, gpus, on_each):
    assert [engines_on(gpu, engines, gpus) for gpu in range(gpus)] == on_each


@pytest.mark.parametrize("fit", WAYS)
@pytest.mark.parametrize("bytes_each", [2, 4])
def test_no_way_loses_weights_on_a_cpu(fit, bytes_each):
    blocks = 1 if fit.transformer in ("fp8", "int8") else bytes_each
    layers = 1 if fit.text_encoder == "int8" else bytes_each
    rest = KLEIN.transformer_rest + KLEIN.text_embedding + KLEIN.autoencoder
    least = KLEIN.blocks * blocks + KLEIN.text_layers * layers + rest * bytes_each
    assert KLEIN.processor_bytes(fit, bytes_each=bytes_each) >= least


def test_weights_that_a_cpu_has_no_memory_for_are_refused_with_what_to_do():
    with pytest.raises(ConfigError) as refused:
        check_host("klein-4b", KLEIN, Fit(), 20 * GIB, bytes_each=4)
    message = refused.value.message
    assert "The weights of klein-4b take 26.3 GiB" in message
    assert "20.0 GiB are there" in message
    assert "set IRIS_DTYPE=bfloat16" in message
    assert "a smaller model, more memory or a GPU" in message
    check_host("klein-4b", KLEIN, Fit(), 20 * GIB)  # as it was told
    check_host("klein-4b", KLEIN, Fit(), 32 * GIB, bytes_each=4)


def test_what_is_rounded_later_is_loaded_whole_in_float32():
    with pytest.raises(ConfigError, match=r"26\.3 GiB"):
        check_host("k", KLEIN, Fit("int8", "int8"), 20 * GIB, bytes_each=4)


def test_engines_on_a_cpu_have_a_copy_each_but_of_what_lies_in_the_files():
    with pytest.raises(ConfigError, match="IRIS_ENGINES=1"):
        check_host("k", KLEIN, Fit(), 32 * GIB, engines=2, bytes_each=4)
    check_host("k", KLEIN, Fit(), 20 * GIB, engines=2, bytes_each=2)


def test_float8_on_a_cpu_is_refused():
    with pytest.raises(ConfigError, match="IRIS_TRANSFORMER=int8"):
        check_host("k", KLEIN, Fit("fp8", "whole"), 80 * GIB)
