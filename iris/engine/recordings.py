"""Work that comes again and again in the same shapes: done, then recorded, then replayed.

A pass over one picture asks the device for hundreds of kernels, and from 512x512 to 768x768 it
is the asking that takes the time. The first time such work comes it is done; that is what
libraries need to choose their kernels. The second time it is recorded on its way, which costs the
host no more than doing it. From then on the host only says: again.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

from torch import Tensor

from iris.engine import metrics
from iris.engine.memory import gives_way, is_out_of_memory
from iris.engine.replay import Recorder, Replay, Work

_log = logging.getLogger("iris.engine")

_MOST = 24  # each keeps some MiB beside the memory that all share


@dataclass(slots=True)
class _Recording:
    work: Work
    replay: Replay | None = None
    is_recordable: bool = True


class Recordings:
    """The works last asked for, by what tells them apart. One thread runs them.

    They are given up where anybody lacks memory, and no more are made once one found none.
    """

    def __init__(self, stage: str, recorder: Recorder | None = None, most: int = _MOST) -> None:
        """stage: of the engine, as metrics call it."""
        self._bytes = metrics.RECORDING_BYTES.labels(stage)
        self._recorder = recorder or Recorder()
        self._most = most
        self._kept: OrderedDict[Hashable, _Recording] = OrderedDict()  # the last used is last
        self._has_room = True
        gives_way(self)

    def run(self, key: Hashable, begin: Callable[[], Work], inputs: Sequence[Tensor]) -> Tensor:
        """What the work of this key gives for the inputs.

        begin: gives the work, see `Recorder.record`; only asked where the key is new.
        """
        kept = self._kept.pop(key, None)
        if kept is None:
            new = _Recording(begin())
            output = new.work(*inputs)  # if that fails, the next time is the first once more
            while len(self._kept) >= self._most:
                self._kept.popitem(last=False)
            self._kept[key] = new
            self._count()
            return output
        self._kept[key] = kept
        if kept.replay is None and kept.is_recordable and self._has_room:
            self._record(kept, inputs)
        return (kept.replay or kept.work)(*inputs)

    def _record(self, kept: _Recording, inputs: Sequence[Tensor]) -> None:
        try:
            kept.replay = self._recorder.record(kept.work, inputs)
        except RuntimeError as error:
            if is_out_of_memory(error):
                self._has_room = False
                reason = "from now on passes run call by call, there is no memory to record them"
            else:
                kept.is_recordable = False
                reason = "a pass runs call by call, it cannot be recorded"
            _log.warning("%s: %s", reason, error)
        if not self._has_room:
            self.forget()
        self._count()

    def forget(self, is_over: Callable[[Hashable], bool] = lambda _: True) -> None:
        """Give back the memory of those whose keys are over. Any thread may ask for it."""
        for key in list(self._kept):
            if is_over(key):
                self._kept.pop(key, None)
        self._count()

    def _count(self) -> None:
        replays = [kept.replay for kept in list(self._kept.values())]
        self._bytes.set(sum(replay.kept_bytes for replay in replays if replay))
