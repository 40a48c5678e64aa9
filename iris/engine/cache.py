"""What was encoded before, kept within a bound of bytes; every owner sees only what is its own."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from torch import Tensor

from iris.engine import metrics

Key = tuple[str, object]  # of what kind, and what content


class Cache:
    """Tensors by owner and content, the least recently used let go of first.

    A tensor that another owner's request left here would answer sooner, and so tell what others
    ask for; so nothing is shared between owners. Room is taken from whoever holds the most, so
    that nobody's own entries are pushed out by someone who asks for a great deal.

    Safe to call from several threads.
    """

    def __init__(self, max_bytes: int, on_clear: Callable[[], None] = lambda: None) -> None:
        """on_clear: lets go of what else was kept and can be had anew."""
        self._max_bytes = max_bytes
        self._on_clear = on_clear
        self._lock = threading.Lock()
        self._owners: dict[str, OrderedDict[Key, Tensor]] = {}
        self._bytes: dict[str, int] = {}

    def __len__(self) -> int:
        with self._lock:
            return sum(map(len, self._owners.values()))

    def get(self, owner: str, key: Key) -> Tensor | None:
        with self._lock:
            own = self._owners.get(owner, OrderedDict())
            found = own.get(key)
            if found is not None:
                own.move_to_end(key)
        metrics.CACHE.labels(key[0], "miss" if found is None else "hit").inc()
        return found

    def put(self, owner: str, key: Key, value: Tensor) -> None:
        """Keep the tensor, which nobody may change any more."""
        if value.nbytes > self._max_bytes:
            return
        with self._lock:
            own = self._owners.setdefault(owner, OrderedDict())
            replaced = own.pop(key, None)
            own[key] = value
            freed = 0 if replaced is None else replaced.nbytes
            self._bytes[owner] = self._bytes.get(owner, 0) + value.nbytes - freed
            while sum(self._bytes.values()) > self._max_bytes:
                self._let_go()
            metrics.CACHE_BYTES.set(sum(self._bytes.values()))

    def clear(self) -> None:
        """Let go of everything; the device needs the room."""
        with self._lock:
            self._owners.clear()
            self._bytes.clear()
            metrics.CACHE_BYTES.set(0)
        self._on_clear()

    def _let_go(self) -> None:
        largest = max(self._bytes, key=self._bytes.__getitem__)
        _, value = self._owners[largest].popitem(last=False)
        self._bytes[largest] -= value.nbytes
        if not self._owners[largest]:
            del self._owners[largest], self._bytes[largest]
