import pytest

from iris.api.room import Room
from iris.errors import BackendBusy, RateLimited


def test_a_key_has_its_part_of_the_room_and_all_keys_have_the_whole():
    room = Room(most=10, most_of_one=6)
    one, other = room.share("one"), room.share("other")
    one.take(4)
    one.take(2)
    with pytest.raises(RateLimited) as key_is_full:
        room.share("one").take(1)
    assert key_is_full.value.code == "concurrency_exceeded"
    assert key_is_full.value.retry_after_s
    other.take(4)
    with pytest.raises(BackendBusy) as all_is_full:
        other.take(1)
    assert all_is_full.value.retry_after_s


def test_what_is_given_back_can_be_taken_again_and_is_given_back_once():
    room = Room(most=10, most_of_one=6)
    with room.share("one") as share:
        share.take(6)
        share.give_back()
        with room.share("one") as second:
            second.take(6)
            share.give_back()
            with pytest.raises(RateLimited):
                share.take(1)
    with room.share("one") as third:
        third.take(6)
