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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from sqlalchemy import BigInteger, ForeignKey, String, func, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, Session, mapped_column

from iris.accounts.accounts import AccountRow, default_account, find_account
from iris.accounts.db import Base, Database
from iris.accounts.limits import CounterRow, Limits
from iris.accounts.names import MAX_NAME_CHARACTERS, check_name
from iris.errors import AccountSuspended, BackendUnavailable, InvalidRequest, Unauthenticated

LIVE_PREFIX = "esk_live_"
TEST_PREFIX = "esk_test_"
SUSPENDED = "This account is suspended. Ask its operator."
UNAUTHENTICATED = "Missing or invalid API key. Send it as `Authorization: Bearer <key>`."

PATIENCE_S = 10.0  # how long a look-up may take

_SECRET_CHARACTERS = string.ascii_letters + string.digits
_SECRET_LENGTH = 32
_LOOK_UPS = 4  # at once, in each process
_TOKEN = re.compile(rf"esk_(?:live|test)_[A-Za-z0-9]{{{_SECRET_LENGTH}}}")


@dataclass(frozen=True, slots=True)
class Key:
    """Who asks. All that the rest of the house sees of a key."""

    id: str
    name: str
    is_test: bool
    account_id: str


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """A key as its operator sees it. Times are unix seconds."""

    key: Key
    prefix: str  # the first characters of the secret
    last4: str
    created_at: int
    revoked_at: int | None
    limits: Limits


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
    account_id: Mapped[str] = mapped_column(String(20), ForeignKey("accounts.id"))
    rpm: Mapped[int]
    rpd: Mapped[int]
    max_in_flight: Mapped[int]
    monthly_cap_idr: Mapped[int] = mapped_column(BigInteger)

    def key(self) -> Key:
        return Key(self.id, self.name, self.is_test, self.account_id)

    def limits(self) -> Limits:
        return Limits(
            rpm=self.rpm,
            rpd=self.rpd,
            max_in_flight=self.max_in_flight,
            monthly_cap_idr=self.monthly_cap_idr,
        )


def is_well_formed(token: str) -> bool:
    """Whether the text has the shape of a key; says nothing of whether it is one."""
    return _TOKEN.fullmatch(token) is not None


def hash_token(token: str) -> str:
    """The SHA-256 of a key, 64 hex digits: the only form in which it is kept."""
    # a key has 190 random bits, so a slow password hash would add nothing
    return hashlib.sha256(token.encode()).hexdigest()


def create_key(
    database: Database,
    name: str,
    *,
    is_test: bool,
    account: str | None = None,
    limits: Limits | None = None,
) -> tuple[Key, str]:
    """Make a key. The second value is the secret, which exists nowhere else after this.

    account: name or id; None is the oldest one, made with the name `default` where there is none.

    Raises:
        InvalidRequest: the name is empty, too long or not printable, or there is no such account.
    """
    with database.write() as session:
        return insert_key(session, name, is_test=is_test, account=account, limits=limits)


def insert_key(
    session: Session,
    name: str,
    *,
    is_test: bool,
    account: str | None = None,
    limits: Limits | None = None,
) -> tuple[Key, str]:
    """`create_key` inside a transaction of the caller."""
    check_name(name, "a key")
    limits = limits or Limits()
    account_id = default_account(session) if account is None else find_account(session, account).id
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
        account_id=account_id,
        **asdict(limits),
    )
    session.add(row)
    session.flush()
    session.add(
        CounterRow(
            key_id=row.id,
            day=0,
            day_after=0,
            day_count=0,
            month=0,
            month_after=0,
            month_idr=0,
            in_flight=0,
            admitted=0,
            last_admitted_ms=0,
        )
    )
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
        row = _find(session, key_id)
        if row.revoked_at is None:
            row.revoked_at = int(time.time())
        return _record(row)


def limit_key(database: Database, key_id: str, **changes: int | None) -> KeyRecord:
    """Change limits of a key, by the names of `Limits`; None leaves one as it is.

    They count from the next request on, in every process.

    Raises:
        InvalidRequest: there is no key with this id, or a value is out of its range.
    """
    with database.write() as session:
        row = _find(session, key_id)
        for name, value in asdict(row.limits().changed(**changes)).items():
            setattr(row, name, value)
        return _record(row)


def _find(session: Session, key_id: str) -> KeyRow:
    row = session.get(KeyRow, key_id)
    if row is None:
        raise InvalidRequest(
            f"There is no key with the id {key_id!r}. `iris keys list` shows the ids.",
            param="id",
        )
    return row


def max_in_flight(database: Database, key_id: str) -> int:
    """How many requests the key may have in flight; 1 where it is gone, which is refused later."""
    with database.read() as session:
        row = session.get(KeyRow, key_id)
        return 1 if row is None else row.max_in_flight


def count_keys(session: Session) -> int:
    """How many keys there are, revoked ones included."""
    return session.scalar(select(func.count()).select_from(KeyRow)) or 0


class KeyRing:
    """Checks tokens against the database.

    A key that was found is remembered by its hash for `ttl_s`, so a revocation takes effect within
    that time in every process. Tokens that were refused are not remembered: there are endlessly
    many of them, and they would push the good ones out.

    Looking up has threads of its own: those that a database keeps waiting are missed nowhere else.
    """

    def __init__(
        self,
        database: Database,
        *,
        ttl_s: float = 2.0,
        max_entries: int = 1024,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._threads = ThreadPoolExecutor(_LOOK_UPS, thread_name_prefix="iris-keys")
        self._patience_s = patience_s
        self._ttl_s = ttl_s
        self._max_entries = max_entries
        self._clock = clock
        # sha256 -> key, whether its account is suspended, expiry
        self._found: OrderedDict[str, tuple[Key, bool, float]] = OrderedDict()

    async def authenticate(self, token: str) -> Key:
        """The key whose secret this is.

        Raises:
            Unauthenticated: malformed, unknown or revoked; the message never tells which.
            AccountSuspended: the key is good, its account is closed for now.
            BackendUnavailable: the database cannot be read, or not in time.
        """
        if not is_well_formed(token):
            raise Unauthenticated(UNAUTHENTICATED)
        sha256 = hash_token(token)
        known = self._found.get(sha256)
        asked_at = self._clock()
        if known is None or asked_at >= known[2]:
            try:
                async with asyncio.timeout(self._patience_s):
                    found = await asyncio.get_running_loop().run_in_executor(
                        self._threads, self._look_up, sha256
                    )
            except (SQLAlchemyError, TimeoutError) as error:
                raise BackendUnavailable(
                    "The key cannot be checked at present. Try again."
                ) from error
            if found is None:
                self._found.pop(sha256, None)
                raise Unauthenticated(UNAUTHENTICATED)
            known = (*found, asked_at + self._ttl_s)
            self._remember(sha256, known)
        key, is_suspended, _ = known
        if is_suspended:
            raise AccountSuspended(SUSPENDED)
        return key

    def _look_up(self, sha256: str) -> tuple[Key, bool] | None:
        with self._database.read() as session:
            found = session.execute(
                select(KeyRow, AccountRow.state)
                .join(AccountRow, AccountRow.id == KeyRow.account_id)
                .where(KeyRow.sha256 == sha256)
            ).one_or_none()
        # The index compares hashes, whose prefixes an attacker cannot choose; this comparison
        # keeps it so, whatever the database's collation says two equal texts are.
        if found is None or not hmac.compare_digest(found[0].sha256, sha256):
            return None
        row, state = found
        return None if row.revoked_at is not None else (row.key(), state != "active")

    def _remember(self, sha256: str, known: tuple[Key, bool, float]) -> None:
        self._found[sha256] = known
        self._found.move_to_end(sha256)
        while len(self._found) > self._max_entries:
            self._found.popitem(last=False)


def _record(row: KeyRow) -> KeyRecord:
    return KeyRecord(row.key(), row.prefix, row.last4, row.created_at, row.revoked_at, row.limits())
