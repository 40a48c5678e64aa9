"""API keys: made once, shown once, kept only as a hash; and the ring that checks them."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
import secrets
import string
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import BigInteger, String, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, Session, mapped_column

from iris.accounts.db import Base, Database
from iris.errors import BackendUnavailable, InvalidRequest, Unauthenticated

LIVE_PREFIX = "esk_live_"
TEST_PREFIX = "esk_test_"
MAX_NAME_CHARACTERS = 100
UNAUTHENTICATED = "Missing or invalid API key. Send it as `Authorization: Bearer <key>`."

_SECRET_CHARACTERS = string.ascii_letters + string.digits
_SECRET_LENGTH = 32
_TOKEN = re.compile(rf"esk_(?:live|test)_[A-Za-z0-9]{{{_SECRET_LENGTH}}}")


@dataclass(frozen=True, slots=True)
class Key:
    """Who asks. All that the rest of the house sees of a key."""

    id: str
    name: str
    is_test: bool


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as its operator sees it. Times are unix seconds."""

    key: Key
    prefix: str  # the first characters of the secret
    last4: str
    created_at: int
    revoked_at: int | None


class KeyRow(Base):
    """One key in the database; the secret itself is nowhere."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(String(20), primary_key=True)
    name: Mapped[str] = mapped_column(String(MAX_NAME_CHARACTERS))
    is_test: Mapped[bool]
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    prefix: Mapped[str] = mapped_column(String(16))
    last4: Mapped[str] = mapped_column(String(4))
    created_at: Mapped[int] = mapped_column(BigInteger)
    revoked_at: Mapped[int | None] = mapped_column(BigInteger)

    def key(self) -> Key:
        return Key(self.id, self.name, self.is_test)


def is_well_formed(token: str) -> bool:
    """Whether the text has the shape of a key; says nothing of whether it is one."""
    return _TOKEN.fullmatch(token) is not None


def hash_token(token: str) -> str:
    """The SHA-256 of a key, 64 hex digits: the only form in which it is kept."""
    # a key has 190 random bits, so a slow password hash would add nothing
    return hashlib.sha256(token.encode()).hexdigest()


def create_key(database: Database, name: str, *, is_test: bool) -> tuple[Key, str]:
    """Make a key. The second value is the secret, which exists nowhere else after this.

    Raises:
        InvalidRequest: the name is empty, too long or not printable.
    """
    with database.write() as session:
        return insert_key(session, name, is_test=is_test)


def insert_key(session: Session, name: str, *, is_test: bool) -> tuple[Key, str]:
    """`create_key` inside a transaction of the caller."""
    if not (0 < len(name) <= MAX_NAME_CHARACTERS and name.isprintable() and name.strip() == name):
        raise InvalidRequest(
            f"{name!r} cannot be the name of a key: it must be 1 to {MAX_NAME_CHARACTERS} "
            "printable characters, without spaces around them.",
            param="name",
        )
    random = "".join(secrets.choice(_SECRET_CHARACTERS) for _ in range(_SECRET_LENGTH))
    secret = (TEST_PREFIX if is_test else LIVE_PREFIX) + random
    row = KeyRow(
        id=f"key_{secrets.token_hex(8)}",
        name=name,
        is_test=is_test,
        sha256=hash_token(secret),
        prefix=secret[: len(TEST_PREFIX) + 3],
        last4=secret[-4:],
        created_at=int(time.time()),
    )
    session.add(row)
    session.flush()
    return row.key(), secret


def list_keys(database: Database) -> tuple[KeyRecord, ...]:
    """Every key there ever was, the oldest first; revoked ones stay in the list."""
    with database.read() as session:
        rows = session.scalars(select(KeyRow).order_by(KeyRow.created_at, KeyRow.id))
        return tuple(_record(row) for row in rows)


def revoke_key(database: Database, key_id: str) -> KeyRecord:
    """Revoke a key for good. A key that is revoked already keeps its first time.

    Raises:
        InvalidRequest: there is no key with this id.
    """
    with database.write() as session:
        row = session.get(KeyRow, key_id)
        if row is None:
            raise InvalidRequest(
                f"There is no key with the id {key_id!r}. `iris keys list` shows the ids.",
                param="id",
            )
        if row.revoked_at is None:
            row.revoked_at = int(time.time())
        return _record(row)


def count_keys(session: Session) -> int:
    """How many keys there are, revoked ones included."""
    return session.scalar(select(func.count()).select_from(KeyRow)) or 0


class KeyRing:
    """Checks tokens against the database.

    A key that was found is remembered by its hash for `ttl_s`, so a revocation takes effect within
    that time in every process. Tokens that were refused are not remembered: there are endlessly
    many of them, and they would push the good ones out.
    """

    def __init__(
        self,
        database: Database,
        *,
        ttl_s: float = 2.0,
        max_entries: int = 1024,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._ttl_s = ttl_s
        self._max_entries = max_entries
        self._clock = clock
        self._found: OrderedDict[str, tuple[Key, float]] = OrderedDict()  # sha256 -> key, expiry

    async def authenticate(self, token: str) -> Key:
        """The key whose secret this is.

        Raises:
            Unauthenticated: malformed, unknown or revoked; the message never tells which.
            BackendUnavailable: the database cannot be read.
        """
        if not is_well_formed(token):
            raise Unauthenticated(UNAUTHENTICATED)
        sha256 = hash_token(token)
        known = self._found.get(sha256)
        asked_at = self._clock()
        if known is not None and asked_at < known[1]:
            return known[0]
        try:
            key = await asyncio.to_thread(self._look_up, sha256)
        except SQLAlchemyError as error:
            raise BackendUnavailable("The key cannot be checked at present. Try again.") from error
        if key is None:
            self._found.pop(sha256, None)
            raise Unauthenticated(UNAUTHENTICATED)
        self._remember(sha256, key, asked_at + self._ttl_s)
        return key

    def _look_up(self, sha256: str) -> Key | None:
        with self._database.read() as session:
            row = session.scalar(select(KeyRow).where(KeyRow.sha256 == sha256))
        # The index compares hashes, whose prefixes an attacker cannot choose; this comparison
        # keeps it so, whatever the database's collation says two equal texts are.
        if row is None or not hmac.compare_digest(row.sha256, sha256):
            return None
        return None if row.revoked_at is not None else row.key()

    def _remember(self, sha256: str, key: Key, expires_at: float) -> None:
        self._found[sha256] = (key, expires_at)
        self._found.move_to_end(sha256)
        while len(self._found) > self._max_entries:
            self._found.popitem(last=False)


def _record(row: KeyRow) -> KeyRecord:
    return KeyRecord(row.key(), row.prefix, row.last4, row.created_at, row.revoked_at)
