"""A ledger in the hands of a test, without its thread: what it posts is there when it returns."""

from __future__ import annotations

from dataclasses import dataclass, field

from iris.accounts.accounts import create_account, show_account, top_up
from iris.accounts.db import Database
from iris.accounts.holds import Capture, Hold, Refused, Reserve, Void, new_hold_id
from iris.accounts.keys import create_key
from iris.accounts.limits import Limits
from iris.accounts.posting import Result, post
from iris.accounts.usage import Delivery
from iris.accounts.verify import verify

NO_LIMITS = Limits(rpm=10**6, rpd=10**6, max_in_flight=10**6, monthly_cap_idr=0)
NOON_MS = 1_793_534_400_000  # 1 November 2026, 12:00 UTC
DELIVERY = Delivery(
    route="generation",
    style="none",
    size="768x768",
    num_steps=4,
    input_text_tokens=12,
    input_image_tokens=0,
    output_image_tokens=2304,
    user_tag=None,
)


@dataclass
class Books:
    """One account with one key, on the live ledger unless told."""

    database: Database
    limits: Limits = NO_LIMITS
    is_test: bool = False
    money_idr: int = 0
    now_ms: int = NOON_MS
    lease_id: str = "lease_of_a_test"
    account: str = field(init=False)
    key_id: str = field(init=False)
    secret: str = field(init=False)

    def __post_init__(self) -> None:
        self.account = create_account(self.database, "shop").id
        key, self.secret = create_key(
            self.database, "shop", is_test=self.is_test, account=self.account, limits=self.limits
        )
        self.key_id = key.id
        if self.money_idr:
            top_up(self.database, self.account, self.money_idr, is_test=self.is_test)

    def post(self, *entries: Reserve | Capture | Void) -> list[Result]:
        """All of them in one batch."""
        told = [
            (new_hold_id() if isinstance(entry, Reserve) else entry.hold_id, entry)
            for entry in entries
        ]
        with self.database.write() as session:
            return post(
                session,
                told,
                now_ms=self.now_ms,
                lease_id=self.lease_id,
                max_outcome_bytes=1 << 20,
            )

    def reserve(self) -> Hold | Refused:
        (result,) = self.post(Reserve(self.key_id))
        assert isinstance(result, Hold | Refused)
        return result

    def admitted(self) -> Hold:
        hold = self.reserve()
        assert isinstance(hold, Hold), hold
        return hold

    def refused(self) -> Refused:
        refused = self.reserve()
        assert isinstance(refused, Refused), refused
        return refused

    def capture(self, hold: Hold) -> Result:
        (result,) = self.post(Capture(hold.id, DELIVERY))
        return result

    def void(self, hold: Hold) -> Result:
        (result,) = self.post(Void(hold.id))
        return result

    def balance(self) -> tuple[int, int]:
        """What is available and what is held."""
        account = show_account(self.database, self.account)
        balance = account.test if self.is_test else account.live
        return balance.available_idr, balance.held_idr

    def later(self, seconds: float) -> None:
        self.now_ms += round(seconds * 1000)

    def check(self) -> None:
        assert verify(self.database).breaches == ()
