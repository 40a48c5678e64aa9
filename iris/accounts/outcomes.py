"""What an Idempotency-Key stands for: a picture in the making, or the reply that was given.

A reply is kept in the transaction that takes its price, before its first byte is sent. Whatever is
lost after that, the same request gets the same picture and pays nothing more.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass, field

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Index,
    LargeBinary,
    String,
    Text,
    delete,
    func,
    insert,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.orm import Mapped, Session, mapped_column

from iris.accounts.db import Base, table_of
from iris.errors import InvalidRequest

KEPT_MS = 24 * 3600 * 1000
MAX_TOKEN_CHARACTERS = 255


@dataclass(frozen=True, slots=True)
class Claim:
    """One use of an Idempotency-Key by one API key.

    token: the text of the header; only its hash is kept. fingerprint: of the request's content.
    id: of this one use, so that giving it up gives up nobody else's.
    """

    key_id: str
    token: str = field(repr=False)
    fingerprint: str
    id: str = field(default_factory=lambda: f"claim_{secrets.token_hex(16)}", compare=False)

    @property
    def token_sha256(self) -> str:
        return hashlib.sha256(self.token.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Outcome:
    """A reply that was given."""

    claim: Claim
    headers: dict[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Mine:
    """Nobody made this picture yet: who asked makes it."""


@dataclass(frozen=True, slots=True)
class InTheMaking:
    """Somebody makes it; ask again."""


@dataclass(frozen=True, slots=True)
class Replay:
    """It was made, and this was the reply."""

    headers: dict[str, str]
    body: bytes = field(repr=False)


Standing = Mine | InTheMaking | Replay


# What the partial indexes are made of, as in the journal: a statement says the same, word for word.
HAS_BODY = text("body_bytes > 0")
IS_IN_THE_MAKING = text("lease_id IS NOT NULL")


class OutcomeRow(Base):
    __tablename__ = "outcomes"
    __table_args__ = (
        Index(
            "ix_outcomes_live",  # as many as the bytes of all replies together allow, not a day's
            "created_at_ms",
            "body_bytes",
            sqlite_where=HAS_BODY,
            postgresql_where=HAS_BODY,
        ),
        Index(
            "ix_outcomes_lease_id",
            "lease_id",
            sqlite_where=IS_IN_THE_MAKING,
            postgresql_where=IS_IN_THE_MAKING,
        ),
    )

    key_id: Mapped[str] = mapped_column(String(20), primary_key=True)
    token_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    created_at_ms: Mapped[int] = mapped_column(BigInteger, index=True)
    lease_id: Mapped[str | None] = mapped_column(String(40))  # while in the making
    # Of the reply. While in the making, the id of the claim: a column of its own would be empty for
    # all replies that are kept. Neither the lease nor the time would do, since one process may make
    # two claims for one token within a millisecond.
    headers: Mapped[str | None] = mapped_column(Text)
    body_bytes: Mapped[int] = mapped_column(BigInteger)  # 0 = not there, or not any more


class OutcomeBodyRow(Base):
    """Apart from the other facts, so that those are read without megabytes."""

    __tablename__ = "outcome_bodies"

    key_id: Mapped[str] = mapped_column(String(20), primary_key=True)
    token_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    body: Mapped[bytes] = mapped_column(LargeBinary)


def claim_outcome(session: Session, claim: Claim, lease_id: str, now_ms: int) -> Standing:
    """Say who makes the picture; from `Mine` on it is in the making until it is kept or given up.

    Raises:
        InvalidRequest: the token was used with another content, or its picture was delivered and is
            not kept any more.
    """
    found = session.execute(
        select(
            OutcomeRow.fingerprint,
            OutcomeRow.created_at_ms,
            OutcomeRow.lease_id,
            OutcomeRow.headers,
            OutcomeBodyRow.body,
        )
        .outerjoin(
            OutcomeBodyRow,
            (OutcomeBodyRow.key_id == OutcomeRow.key_id)
            & (OutcomeBodyRow.token_sha256 == OutcomeRow.token_sha256),
        )
        .where(*_is(claim))
    ).one_or_none()
    if found is not None and found.created_at_ms <= now_ms - KEPT_MS and found.lease_id is None:
        _forget(session, claim.key_id, claim.token_sha256)
        found = None
    if found is None:
        session.execute(
            insert(OutcomeRow).values(
                key_id=claim.key_id,
                token_sha256=claim.token_sha256,
                fingerprint=claim.fingerprint,
                created_at_ms=now_ms,
                lease_id=lease_id,
                headers=claim.id,
                body_bytes=0,
            )
        )
        return Mine()
    if found.fingerprint != claim.fingerprint:
        raise InvalidRequest(
            "This `Idempotency-Key` was used with another request in the last 24 hours; use a new "
            "one for every new picture.",
            code="idempotency_mismatch",
            param="Idempotency-Key",
        )
    if found.lease_id is not None:
        return InTheMaking()
    if found.body is None:
        raise InvalidRequest(
            "The picture of this `Idempotency-Key` was delivered, and is no longer kept. Use a new "
            "one to make, and pay for, another picture.",
            code="idempotency_expired",
            param="Idempotency-Key",
        )
    return Replay(json.loads(found.headers), found.body)


def keep_outcome(session: Session, outcome: Outcome, now_ms: int) -> None:
    """Keep a reply. `drop_oldest_bodies` has to follow."""
    claim = outcome.claim
    _forget(session, claim.key_id, claim.token_sha256)  # that it is in the making
    where = {"key_id": claim.key_id, "token_sha256": claim.token_sha256}
    session.execute(
        insert(OutcomeRow).values(
            **where,
            fingerprint=claim.fingerprint,
            created_at_ms=now_ms,
            headers=json.dumps(outcome.headers),
            body_bytes=len(outcome.body),
        )
    )
    session.execute(insert(OutcomeBodyRow).values(**where, body=outcome.body))


def drop_oldest_bodies(session: Session, max_bytes: int) -> None:
    """The oldest replies of all lose their bodies where it is too much together."""
    live = select(func.sum(OutcomeRow.body_bytes)).where(HAS_BODY)
    over = (session.scalar(live) or 0) - max_bytes
    while over > 0:
        oldest = session.execute(
            select(OutcomeRow.key_id, OutcomeRow.token_sha256, OutcomeRow.body_bytes)
            .where(HAS_BODY)
            .order_by(OutcomeRow.created_at_ms)
            .limit(1)
        ).one()
        over -= oldest.body_bytes
        key_id, token = oldest.key_id, oldest.token_sha256
        session.execute(
            update(OutcomeRow)
            .where(OutcomeRow.key_id == key_id, OutcomeRow.token_sha256 == token)
            .values(body_bytes=0)
        )
        session.execute(
            delete(OutcomeBodyRow).where(
                OutcomeBodyRow.key_id == key_id, OutcomeBodyRow.token_sha256 == token
            )
        )


def give_up_outcome(session: Session, claim: Claim) -> None:
    """The picture of this claim will not come: whoever asks again makes it.

    Harmless at any later time: the claim of another use of the token stays, and so does a reply.
    """
    session.execute(
        delete(OutcomeRow).where(
            *_is(claim), OutcomeRow.lease_id.is_not(None), OutcomeRow.headers == claim.id
        )
    )


def forget_old_outcomes(session: Session, now_ms: int) -> None:
    """Remove what is older than 24 hours."""
    # Not one by one: after a rest of a day this is all that there is.
    rows, bodies = table_of(OutcomeRow), table_of(OutcomeBodyRow)
    old = (rows.c.created_at_ms <= now_ms - KEPT_MS, rows.c.lease_id.is_(None))
    with_body = select(rows.c.key_id, rows.c.token_sha256).where(HAS_BODY, *old)
    session.execute(
        delete(bodies).where(tuple_(bodies.c.key_id, bodies.c.token_sha256).in_(with_body))
    )
    session.execute(delete(rows).where(*old))


def _forget(session: Session, key_id: str, token_sha256: str) -> None:
    for row in (OutcomeRow, OutcomeBodyRow):
        session.execute(delete(row).where(row.key_id == key_id, row.token_sha256 == token_sha256))


def _is(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return (OutcomeRow.key_id == claim.key_id, OutcomeRow.token_sha256 == claim.token_sha256)
