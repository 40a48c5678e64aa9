"""What dead processes left open: pictures that they had handed over are paid, the others are not.

Two ways to know that a process is dead. One of this home: the lock of its file is free. One of
another host: its beats have stood still for a while, by the clock of whoever looks and by no clock
that anybody could set. Only time in which somebody looked counts: while the database was away, or
whoever looks was stopped itself, the living could not beat or nobody saw it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from iris.accounts.clock import Clock
from iris.accounts.db import Database
from iris.accounts.holds import Capture, HoldRow, Void
from iris.accounts.lease import LeaseRow, dead_leases
from iris.accounts.outcomes import OutcomeRow, forget_old_outcomes
from iris.accounts.posting import post
from iris.accounts.usage import Delivery

DEAD_AFTER_S = 30.0  # without a beat
MAX_GAP_S = 10.0  # between two looks: two ticks of the till; what is longer was not watched
PURGE_EVERY_S = 60.0

_log = logging.getLogger("iris")


def recover(database: Database, home: Path) -> int:
    """Resolve every hold of the dead processes of this home; returns how many there were.

    Safe beside living processes, and beside others that recover.

    Raises:
        SQLAlchemyError: the database cannot be written; nothing is lost, it can be called again.
    """
    with dead_leases(home) as dead:
        if not dead:
            return 0  # without waiting for whoever writes
        with database.write() as session:
            count = sum(
                resolve_dead(session, lease.id, lease.delivered, Clock().now_ms()) for lease in dead
            )
    if count:
        _log.warning("holds of a dead process were resolved", extra={"fields": {"holds": count}})
    return count


def resolve_dead(
    session: Session, lease_id: str, delivered: dict[str, Delivery], now_ms: int
) -> int:
    """Resolve every hold of one lease and forget it; returns how many there were."""
    holds = session.scalars(select(HoldRow.id).where(HoldRow.lease_id == lease_id)).all()
    post(
        session,
        [
            (
                hold_id,
                Capture(hold_id, delivered[hold_id]) if hold_id in delivered else Void(hold_id),
            )
            for hold_id in holds
        ],
        now_ms=now_ms,
        lease_id=lease_id,
        max_outcome_bytes=0,
    )
    session.execute(delete(OutcomeRow).where(OutcomeRow.lease_id == lease_id))
    session.execute(delete(LeaseRow).where(LeaseRow.id == lease_id))
    return len(holds)


class Watch:
    """Keeps one lease alive, and resolves the holds of those that are not. Called by the till."""

    def __init__(
        self,
        lease_id: str,
        home: Path,
        *,
        dead_after_s: float = DEAD_AFTER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lease_id = lease_id
        self._home = home
        self._dead_after_s = dead_after_s
        self._clock = clock
        self._seen: dict[str, tuple[int, float]] = {}  # lease -> beats, since when they stand
        self._looked_at_s = 0.0
        self._purge_at_s = 0.0

    def __call__(self, database: Database, now_ms: int) -> None:
        recover(database, self._home)  # a neighbour that died; its notes are here
        with database.write() as session:
            now_s = self._clock()
            self._look(session, now_s, now_ms)
        self._looked_at_s = now_s  # only now, since where this is not kept nobody's beat is

    def _look(self, session: Session, now_s: float, now_ms: int) -> None:
        self._beat(session)
        # Also those whose process ended before its first beat: a hold is enough to be looked for.
        beats: dict[str, int] = dict.fromkeys(
            session.scalars(select(HoldRow.lease_id).distinct()), -1
        )
        for lease_id, number in session.execute(select(LeaseRow.id, LeaseRow.beats)):
            beats[lease_id] = number
        beats.pop(self._lease_id, None)
        for lease_id in self._standing_still(beats, now_s):
            count = resolve_dead(session, lease_id, {}, now_ms)
            _log.warning("holds of a lost process were voided", extra={"fields": {"holds": count}})
        if now_s >= self._purge_at_s:
            forget_old_outcomes(session, now_ms)
            self._purge_at_s = now_s + PURGE_EVERY_S

    def _beat(self, session: Session) -> None:
        beaten = session.execute(
            update(LeaseRow)
            .where(LeaseRow.id == self._lease_id)
            .values(beats=LeaseRow.beats + 1)
            .returning(LeaseRow.id)
        ).first()
        if beaten is None:
            session.add(LeaseRow(id=self._lease_id, beats=1))

    def _standing_still(self, beats: dict[str, int], now_s: float) -> Iterable[str]:
        if now_s - self._looked_at_s > MAX_GAP_S:
            self._seen.clear()
        for lease_id in self._seen.keys() - beats.keys():
            del self._seen[lease_id]
        for lease_id, number in beats.items():
            known = self._seen.get(lease_id)
            if known is None or known[0] != number:
                self._seen[lease_id] = (number, now_s)
            elif now_s - known[1] > self._dead_after_s:
                yield lease_id
