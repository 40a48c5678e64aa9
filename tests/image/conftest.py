"""The built image, started as an orchestrator would: with nothing that it does not need."""

import json
import os
import secrets
import socket
import subprocess
import time
import warnings
from contextlib import ExitStack
from dataclasses import dataclass, field

import httpx
import pytest
from build_image import STATE, left_environment
from openai import OpenAI

with warnings.catch_warnings():
    # BentoML uses a name of pathspec that is on its way out
    warnings.simplefilter("ignore", DeprecationWarning)
    import bentoml._internal.cloud  # noqa: F401

START_S = 180
FIGURES = pytest.StashKey[dict[str, str]]()


def pytest_terminal_summary(terminalreporter, config):
    if figures := config.stash.get(FIGURES, {}):
        terminalreporter.write_line("; ".join(f"{what} {value}" for what, value in figures.items()))


@pytest.fixture(scope="session")
def figures(pytestconfig):
    """What was measured on the way, shown at the end."""
    return pytestconfig.stash.setdefault(FIGURES, {})


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Backend:
    """The program that runs containers."""

    def __init__(self, name):
        self._name = name
        self._env = os.environ | left_environment()

    def __call__(self, *arguments, check=True, timeout=120):
        done = subprocess.run(
            [self._name, *arguments],
            env=self._env,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        assert done.returncode == 0 or not check, done.stderr
        return done


@dataclass
class Container:
    backend: Backend
    name: str
    port: int
    metrics_port: int
    begun_s: float = field(default_factory=time.monotonic)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self):
        done = self.backend("logs", self.name)
        return done.stdout + done.stderr

    def run(self, *command, check=True):
        """A command inside; what it prints."""
        done = self.backend("exec", self.name, *command, check=False)
        if check:
            assert done.returncode == 0, done.stderr
        return done.stdout.strip() if check else done.returncode

    def python(self, code):
        return json.loads(self.run("python", "-c", code))

    def state(self):
        return json.loads(self.backend("inspect", self.name).stdout)[0]["State"]

    def is_ready(self):
        try:
            return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def wait_until_ready(self):
        """Returns the seconds from its start."""
        while not self.is_ready():
            assert self.state()["Running"], self.log
            assert time.monotonic() - self.begun_s < START_S, self.log
            time.sleep(0.2)
        return time.monotonic() - self.begun_s

    def wait_until_ended(self, timeout_s=60):
        """Returns its exit status."""
        return int(self.backend("wait", self.name, timeout=timeout_s).stdout)

    @property
    def key(self):
        return self.run("cat", f"{STATE}/first-key")

    def openai(self):
        return OpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, timeout=120)


@pytest.fixture(scope="session")
def backend():
    return Backend(os.environ["BACKEND"])


@pytest.fixture(scope="session")
def image(backend):
    """What `image inspect` says of it."""
    return json.loads(backend("image", "inspect", os.environ["IMAGE"]).stdout)[0]


@pytest.fixture(scope="session")
def start(backend, figures):
    """start("--env", "...") -> a Container; all of them, and their volumes, go at the end."""
    with ExitStack() as stack:

        def start_container(*options, ready=True):
            name = f"epithre-iris-test-{secrets.token_hex(4)}"
            port, metrics_port = free_port(), free_port()
            stack.callback(backend, "volume", "rm", "--force", name, check=False)
            stack.callback(backend, "rm", "--force", name, check=False)
            container = Container(backend, name, port, metrics_port)
            backend(
                "run",
                "--detach",
                "--name",
                name,
                "--read-only",
                "--tmpfs=/tmp:rw,nosuid,nodev,noexec,size=256m,mode=1777",
                f"--volume={name}:{STATE}",
                "--cap-drop=ALL",
                "--security-opt=no-new-privileges",
                f"--publish=127.0.0.1:{port}:{port}",
                # another port than the usual one: the network may be shared with the host
                f"--env=PORT={port}",
                f"--env=IRIS_METRICS_BIND=127.0.0.1:{metrics_port}",
                *options,
                os.environ["IMAGE"],
            )
            if ready:
                figures.setdefault("ready in", f"{container.wait_until_ready():.1f} s")
            return container

        yield start_container


@pytest.fixture(scope="session")
def container(start):
    """The one that most tests share; none of them may leave it changed."""
    return start()
