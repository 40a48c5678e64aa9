"""Accounts: which one is the oldest, and what none can be named."""

from __future__ import annotations

import time

import pytest

from iris.accounts.accounts import create_account, list_accounts
from iris.accounts.db import Database
from iris.accounts.keys import create_key
from iris.errors import InvalidRequest


@pytest.mark.parametrize("step_s", [0, -3_600])
def test_the_oldest_account_is_the_first_that_was_made_whatever_the_clock_said(
    either: Database, monkeypatch: pytest.MonkeyPatch, step_s: int
) -> None:
    made = []
    for number in range(8):
        now_s = 1_793_534_400 + number * step_s
        monkeypatch.setattr(time, "time", lambda now_s=now_s: now_s)
        made.append(create_account(either, f"shop {number}").id)
    key, _ = create_key(either, "web", is_test=False)
    assert key.account_id == made[0]
    assert [account.id for account in list_accounts(either)] == made


@pytest.mark.parametrize("name", ["a/b", "/", ".", ".."])
def test_no_account_has_a_name_that_no_address_can_hold(database: Database, name: str) -> None:
    with pytest.raises(InvalidRequest, match="address") as raised:
        create_account(database, name)
    assert raised.value.param == "name"
    assert list_accounts(database) == ()
