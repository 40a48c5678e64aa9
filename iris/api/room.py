"""Room in memory for the bodies of requests, so that nobody can fill it with what is not paid.

A body is read before anything is known of it but its key, and stays until its images are decoded.
"""

from __future__ import annotations

from collections import Counter

from iris.errors import BackendBusy, RateLimited

MAX_BYTES = 512 << 20  # ten of the largest bodies, of all keys together
MAX_OF_ONE_KEY = 256 << 20

_RETRY_AFTER_S = 1.0


class Room:
    """For all bodies of one front."""

    def __init__(self, most: int = MAX_BYTES, most_of_one: int = MAX_OF_ONE_KEY) -> None:
        self._most = most
        self._most_of_one = most_of_one
        self._taken: Counter[str] = Counter()  # bytes, by key

    def share(self, key_id: str) -> Share:
        """What the body of one request will take."""
        return Share(self, key_id)

    def take(self, key_id: str, count: int) -> None:
        """
        Raises:
            RateLimited: the key has as much as one may have.
            BackendBusy: all together have as much as there is.
        """
        if self._taken[key_id] + count > self._most_of_one:
            raise RateLimited(
                f"Requests of this key with more than {self._most_of_one >> 20} MB together are "
                "being read or wait for their turn. Send fewer at once.",
                code="concurrency_exceeded",
                retry_after_s=_RETRY_AFTER_S,
            )
        if self._taken.total() + count > self._most:
            raise BackendBusy(
                "More images are being sent than there is room for. Try again later.",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._taken[key_id] += count

    def give_back(self, key_id: str, count: int) -> None:
        self._taken[key_id] -= count
        if not self._taken[key_id]:
            del self._taken[key_id]


class Share:
    """The room of one body, as long as it is held."""

    def __init__(self, room: Room, key_id: str) -> None:
        self._room = room
        self._key_id = key_id
        self._count = 0

    def __enter__(self) -> Share:
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()

    def take(self, count: int) -> None:
        """So many bytes more. Raises as `Room.take` does."""
        self._room.take(self._key_id, count)
        self._count += count

    def give_back(self) -> None:
        """All that was taken, as soon as it is not needed any more."""
        self._room.give_back(self._key_id, self._count)
        self._count = 0
