"""The whole service, killed: what a client has is what it pays, and nothing stays held."""

import json
import os
import random
import secrets
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
from openai import RateLimitError

from tests.serve.conftest import body

pytestmark = pytest.mark.serve

IRIS = Path(sys.executable).with_name("iris")


def iris(server, *arguments, check=True):
    env = {**os.environ, "IRIS_HOME": str(server.home)}
    return subprocess.run([IRIS, *arguments], env=env, capture_output=True, text=True, check=check)


def verdict(server):
    """What `iris ledger verify` says once nothing is in flight any more."""
    deadline = time.monotonic() + 10
    while True:
        told = json.loads(iris(server, "ledger", "verify", "--json", check=False).stdout)
        if not told["open_holds"] or time.monotonic() > deadline:
            return told
        time.sleep(0.2)


def buy(server, token, replies):
    """Ask until the picture is there, as a client with an Idempotency-Key does."""
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline:
        try:
            with server.client(headers={"idempotency-key": token}) as client:
                reply = client.post("/v1/images/generations", json=body(num_steps=8))
            if reply.status_code == 200:
                replies.append(reply)
                return
        except httpx.HTTPError:
            pass  # the process is gone
        time.sleep(0.2)


def ask(server):
    """Once; the answer may never come."""
    with suppress(httpx.HTTPError), server.client() as client:
        client.post("/v1/images/generations", json=body(num_steps=50))


def test_a_front_that_is_killed_again_and_again_charges_every_picture_once(start):
    server = start()
    before = verdict(server)["captured_test_idr"]
    replies, buyers = [], []
    for _ in range(2):
        for _ in range(3):
            token = secrets.token_hex(8)
            buyers.append(threading.Thread(target=buy, args=(server, token, replies)))
            buyers[-1].start()
        time.sleep(random.uniform(0.3, 1.5))
        server.front().kill()
        server.wait_until_ready()
    for buyer in buyers:
        buyer.join()
    told = verdict(server)
    assert len(replies) == 6
    assert told["breaches"] == []
    assert told["open_holds"] == 0
    assert told["captured_test_idr"] - before == 750 * 6
    server.stop()
    assert list((server.home / "leases").iterdir()) == []  # nothing is left for the next start


def test_a_reply_is_there_again_after_the_whole_service_was_killed(start):
    server = start()
    headers = {"idempotency-key": "order-1"}
    with server.client(headers=headers) as client:
        first = client.post("/v1/images/generations", json=body())
    assert first.status_code == 200
    hanging = threading.Thread(target=ask, args=(server,))
    hanging.start()
    time.sleep(0.3)
    server.kill()
    server = start(home=server.home)
    hanging.join()
    with server.client(headers=headers) as client:
        again = client.post("/v1/images/generations", json=body())
    assert again.content == first.content
    assert again.headers["x-iris-replayed"] == "true"
    told = verdict(server)
    assert told["breaches"] == []
    assert told["open_holds"] == 0


def test_an_openai_client_reads_usage_and_limits_of_a_key_that_was_made_by_hand(server):
    made = json.loads(
        iris(server, "keys", "create", "--name", "two", "--rpm", "2", "--json").stdout
    )
    client = server.openai(api_key=made["secret"])
    raw = client.images.with_raw_response.generate(**body_for_openai())
    assert raw.headers["x-ratelimit-limit-requests"] == "2"
    assert raw.headers["x-ratelimit-remaining-requests"] == "1"
    assert raw.headers["x-iris-cost-idr"] == "750"
    client.images.generate(**body_for_openai())
    with pytest.raises(RateLimitError) as caught:
        client.images.generate(**body_for_openai())
    assert caught.value.code == "rpm_exceeded"
    assert 0 < int(caught.value.response.headers["retry-after"]) <= 60
    used = httpx.get(
        f"{server.url}/v1/usage?group_by=key",
        headers={"authorization": f"Bearer {made['secret']}"},
    ).json()
    (own,) = [line for line in used["data"] if line["key"] == made["id"]]
    assert (own["pictures"], own["cost_idr"]) == (2, 1_500)
    assert server.metric("iris_key_pictures_total", key_id=made["id"], ledger="test") == 2
    metrics = httpx.get(server.metrics_url).text
    assert made["secret"] not in metrics


def body_for_openai():
    fields = body()
    return {
        "model": fields["model"],
        "prompt": fields["prompt"],
        "size": fields["size"],
        "extra_body": {"seed": fields["seed"]},
    }
