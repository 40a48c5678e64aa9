"""Tells the running services of this host that their styles have changed."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from iris.errors import BackendUnavailable, ConfigError

_FOLDER = "control"  # in IRIS_HOME, see iris.api.control
_TIMEOUT_S = 120.0  # every style is read once


def reload_styles(home: Path) -> Iterator[str]:
    """Ask every service that runs on `home`; one line about each that did it.

    Raises:
        BackendUnavailable: none runs, or some could not do it; says which and why, once all of
            them have been asked.
        ConfigError: `home` cannot be read.
    """
    num_asked, failed = 0, []
    for path in _sockets(home / _FOLDER):
        try:
            answer = _ask(path)
        except BackendUnavailable as error:
            failed.append(error.message)
            continue
        if answer is not None:
            num_asked += 1
            yield f"process {path.stem} serves: {', '.join(answer) or 'no style'}"
    if failed:
        raise BackendUnavailable(" ".join(failed))
    if not num_asked:
        raise BackendUnavailable(
            f"No service runs on IRIS_HOME={home}. One that starts loads the styles by itself."
        )


def _sockets(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.suffix == ".sock")
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(
            f"{folder} cannot be read ({error.strerror}). Reload as the user who runs the service, "
            "with its IRIS_HOME."
        ) from error


def _ask(path: Path) -> list[str] | None:
    """The styles that are served then; None where nobody listens any more."""
    with socket.socket(socket.AF_UNIX) as speaker:
        speaker.settimeout(_TIMEOUT_S)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            speaker.connect(f"/proc/self/fd/{folder}/{path.name}")  # the whole may be too long
        except ConnectionRefusedError:  # left by a process that was killed
            with suppress(OSError):
                path.unlink()
            return None
        except OSError as error:
            raise BackendUnavailable(f"{path} cannot be reached ({error.strerror}).") from error
        finally:
            os.close(folder)
        return _reload(path.stem, speaker)


def _reload(process: str, speaker: socket.socket) -> list[str]:
    connection = http.client.HTTPConnection("localhost", timeout=_TIMEOUT_S)
    connection.sock = speaker
    try:
        connection.request("POST", "/styles/reload")
        document = json.loads(connection.getresponse().read())
        if "error" not in document:
            return [str(style) for style in document["styles"]]
        message = str(document["error"]["message"])
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError) as error:
        raise BackendUnavailable(
            f"process {process} did not answer in order ({type(error).__name__}); see its log."
        ) from error
    raise BackendUnavailable(f"process {process}: {message}")
