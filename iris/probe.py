"""Asks a running service of this host how it is: for orchestrators that call a command."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, build_opener

from iris.errors import BackendUnavailable

TIMEOUT_S = 4.0
_DIRECT = build_opener(ProxyHandler({}))  # whatever proxy the environment names for the outside


def own_url(env: Mapping[str, str] | None = None) -> str:
    """Where a service that was started with this environment listens."""
    env = os.environ if env is None else env
    return f"http://127.0.0.1:{env.get('PORT') or env.get('BENTOML_PORT') or 3000}"


def ask(url: str) -> str:
    """One line that says how the service is.

    url: of a health route, such as http://127.0.0.1:3000/readyz

    Raises:
        BackendUnavailable: it does not answer, or says that it is not well.
    """
    health = _health(url)
    state = "ready" if health["ready"] else "alive, not ready"
    return f"{state}; {health['running']} pictures running, {health['waiting']} waiting"


def wait_until_idle(
    url: str, timeout_s: float, progress: Callable[[str], None], pause_s: float = 1.0
) -> None:
    """Return when the service has no picture left to make, or is not there any more.

    Raises:
        BackendUnavailable: it still has some after timeout_s.
    """
    deadline_s = time.monotonic() + timeout_s
    shown = ""
    num_idle = 0
    while num_idle < 2:  # a picture that comes in now is in no count yet
        try:
            health = _health(f"{url}/livez")
        except BackendUnavailable as error:
            progress(error.message)
            return
        num_pictures = health["running"] + health["waiting"]
        num_idle = 0 if num_pictures else num_idle + 1
        if num_idle < 2:
            if time.monotonic() > deadline_s:
                raise BackendUnavailable(
                    f"{url} still has {num_pictures} pictures to make after {timeout_s:g} s."
                )
            if (line := f"{num_pictures} pictures to make") != shown:
                progress(shown := line)
            time.sleep(pause_s)


def _health(url: str) -> Any:
    try:
        with _DIRECT.open(url, timeout=TIMEOUT_S) as reply:
            health = json.load(reply)
            return {name: health[name] for name in ("ready", "running", "waiting")}
    except HTTPError as error:
        with error:
            detail = _message(error.read())
        raise BackendUnavailable(f"{url} answers {error.code}: {detail}") from None
    except (URLError, OSError, ValueError, KeyError, TypeError) as error:
        reason = getattr(error, "reason", error)
        raise BackendUnavailable(f"{url} does not answer as this service does: {reason}") from None


def _message(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return "another service listens there"
