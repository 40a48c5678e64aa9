import pytest

from iris.engine.places import Places

OWN_S = 2.0


@pytest.fixture
def places():
    """A place for Anna from 10 s on."""
    places = Places()
    places.keep("anna", 10.0, OWN_S)
    return places


def expected_s(places, own_s=OWN_S, until_s=100.0):
    return places.expected_s(own_s, until_s)


def test_who_comes_back_when_told_to_finds_the_place_once(places):
    assert places.take("anna", 10.0) is not None
    assert places.take("anna", 10.0) is None
    assert expected_s(places) == 0.0


@pytest.mark.parametrize(("likeness", "now_s"), [("anna", 5.0), ("anna", 16.0), ("ben", 10.0)])
def test_nobody_else_gets_it_and_nobody_too_early_or_too_late(places, likeness, now_s):
    assert places.take(likeness, now_s) is None


def test_only_what_comes_in_time_and_is_not_much_longer_is_expected(places):
    assert expected_s(places) == OWN_S
    assert expected_s(places, until_s=9.0) == 0.0
    assert expected_s(places, own_s=OWN_S / 4) == 0.0


def test_as_much_is_expected_as_came_back_of_late():
    places = Places()
    for number in range(100):
        places.keep("anna", 20.0 * number, OWN_S)
        assert places.take("ben", 20.0 * number + 10.0) is None
    places.keep("anna", 3000.0, OWN_S)
    assert expected_s(places, until_s=4000.0) < 0.01 * OWN_S
    for number in range(100):
        places.keep("anna", 5000.0 + number, OWN_S)
        assert places.take("anna", 5000.0 + number) is not None
    places.keep("anna", 6000.0, OWN_S)
    assert expected_s(places, until_s=7000.0) == pytest.approx(OWN_S, rel=0.01)
