"""How requests share one engine: batched admission, previews beside finals, places given back."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.serve.conftest import body, picture

pytestmark = pytest.mark.serve

ADMITTED = "iris_engine_admission_batch_pictures"
ENCODED = "iris_engine_stage_seconds_count"


def generate(client, **changes):
    return client.post("/v1/images/generations", json=body(**changes))


def a_long_one(**changes):
    return {"num_steps": 50, "size": "960x960", "guidance_scale": 2.0} | changes


def eventually(condition, within_s=15):
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.05)


def test_requests_that_arrive_together_are_admitted_and_encoded_together(server):
    """Fewer admissions and as many forward passes of the text encoder as admissions."""
    count = 24
    before = {name: server.metric(name, method="generate") for name in (f"{ADMITTED}_count",)}
    passes = server.metric(ENCODED, stage="text_encode")
    with ThreadPoolExecutor(count) as pool, server.client() as client:
        replies = list(pool.map(lambda n: generate(client, prompt=f"boat {n}"), range(count)))
    assert [reply.status_code for reply in replies] == [200] * count
    admissions = server.metric(f"{ADMITTED}_count", method="generate") - before[f"{ADMITTED}_count"]
    passes = server.metric(ENCODED, stage="text_encode") - passes
    assert passes == admissions
    assert admissions < count


def test_a_picture_is_the_same_alone_and_in_company(server):
    with server.client() as client:
        alone = generate(client, seed=42).json()["data"]
        with ThreadPoolExecutor(6) as pool:
            company = [
                pool.submit(generate, client, seed=seed, lora="dark", num_steps=8)
                for seed in range(5)
            ]
            together = pool.submit(generate, client, seed=42).result().json()["data"]
            assert all(other.result().status_code == 200 for other in company)
    assert together == alone


def test_a_preview_never_waits_for_a_final(server):
    with server.client() as client, ThreadPoolExecutor(1) as pool:
        final = pool.submit(generate, client, **a_long_one())
        eventually(lambda: server.metric("iris_engine_running_pictures") == 1)
        assert picture(generate(client).json()).size == (128, 128)
        assert not final.done()
        assert final.result().status_code == 200


def test_a_client_that_leaves_frees_its_place(server):
    cancelled = server.metric("iris_engine_pictures_total", outcome="cancelled")
    with server.client() as client, pytest.raises(httpx.ReadTimeout):
        client.post("/v1/images/generations", json=body(**a_long_one()), timeout=1.0)
    eventually(lambda: server.metric("iris_engine_running_pictures") == 0, within_s=5)
    assert server.metric("iris_engine_pictures_total", outcome="cancelled") == cancelled + 1


@pytest.fixture(scope="module")
def tight(start):
    """A server with room for one running and one waiting picture."""
    return start(IRIS_MAX_RUNNING="1", IRIS_MAX_WAITING="1")


def test_more_than_fits_is_refused_at_once_and_told_when_to_return(tight):
    with tight.client() as client, ThreadPoolExecutor(2) as pool:
        running = pool.submit(generate, client, num_steps=50, size="640x640")
        eventually(lambda: tight.metric("iris_engine_running_pictures") == 1)
        waiting = pool.submit(generate, client, num_steps=50, size="640x640")  # not less work
        eventually(lambda: tight.metric("iris_engine_waiting_pictures") == 1)
        refused = generate(client)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "backend_busy"
        assert int(refused.headers["retry-after"]) >= 1
        assert not running.done()
        assert running.result().status_code == waiting.result().status_code == 200
        assert generate(client).status_code == 200


def test_a_picture_that_cannot_make_its_deadline_is_a_504(start):
    """A hundred passes at 960x960 in two seconds: refused before the first one."""
    hurried = start(IRIS_DEADLINE_S="2")
    with hurried.client() as client:
        slow = generate(client, **a_long_one())
        assert slow.status_code == 504
        assert slow.json()["error"]["code"] == "backend_timeout"
        assert "fewer steps" in slow.json()["error"]["message"]
        assert generate(client, num_steps=1, size="64x64").status_code == 200


def test_every_one_of_a_burst_is_answered(server):
    """40 at once, twice as many as one batch of admissions takes: nobody is lost or masked."""
    statuses = []
    lock = threading.Lock()

    def ask(seed):
        with server.client() as client:
            status = generate(client, seed=seed, size="64x64", num_steps=1).status_code
        with lock:
            statuses.append(status)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert statuses == [200] * 40
