"""The BentoML services: the front that speaks HTTP and the engine that owns the device.

`bentoml serve` starts one process for each. Only this file knows both sides; the front reaches
the engine through `RemoteEngine`.
"""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

# libgomp reads these when torch loads it: threads that wait must not spin on busy cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")  # nobody is told that this server runs

import bentoml
import uvicorn.config
from bentoml._internal.configuration.containers import BentoMLContainer
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iris.accounts.db import Database
from iris.accounts.first_key import ensure_first_key
from iris.accounts.keys import Key, KeyRing
from iris.accounts.ledger import Ledger
from iris.accounts.limits import Limits
from iris.api.app import create_app
from iris.api.fleet import Fleet
from iris.api.log import configure_logging
from iris.api.remote_engine import RemoteEngine
from iris.api.single_call import SingleCall
from iris.catalog import Catalog
from iris.config import Settings
from iris.devices import num_devices
from iris.drain import Drain
from iris.errors import BackendUnavailable, ConfigError, StoreError
from iris.images.decode import Decoder
from iris.jobs import (
    Admission,
    EditJob,
    EngineHealth,
    Failure,
    GenerateJob,
    Job,
    Outcome,
    Quote,
    Refusal,
)
from iris.store.bento import declare_models
from iris.store.image import container_image
from iris.store.importer import ensure_registered
from iris.store.pinned import served_registry
from iris.store.registry import Registry
from iris.store.resolver import resolve
from iris.welcome import welcome

_log = logging.getLogger("iris")
T = TypeVar("T")

settings = Settings.from_env()
registry = served_registry(settings)
ensure_registered(registry, progress=lambda line: print(line, flush=True))

if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:  # only the process that starts the others
    # BentoML keeps the metrics of all servers in one folder of $BENTOML_HOME and empties it at
    # every start, under the feet of a server that runs already.
    _metrics_dir = tempfile.mkdtemp(prefix="iris-metrics-")
    atexit.register(shutil.rmtree, _metrics_dir, ignore_errors=True)
    BentoMLContainer.prometheus_multiproc_dir.set(_metrics_dir)

# Every HTTP server of this process speaks through our protocol, which bounds what uvicorn leaves
# unbounded; BentoML offers no setting for it.
uvicorn.config.HTTP_PROTOCOLS["auto"] = "iris.api.protocol:BoundedH11Protocol"

_FRONT = "epithre_iris"
_NUM_ENGINES = settings.engines or num_devices(settings.device)
_GRACE_S = 25.0  # for what has begun when we are told to end; BentoML kills after 30
_LAST_WORDS_S = 2.0  # for the answers of an engine whose device hangs, before its process ends
_COLLECT_POLL_S = 0.25  # how soon a front that died is noticed
# Longer than a body, a wait for the same Idempotency-Key and a picture may take: BentoML would
# answer in another shape than ours.
_TRAFFIC_TIMEOUT_S = int(settings.body_timeout_s + 2 * settings.deadline_s) + 60


class IrisEngine:
    """One device, one copy of the weights. Answers with values only: BentoML masks exceptions."""

    number = 0  # of the engine among all

    def __init__(self) -> None:
        if os.environ.get("BENTOML_NO_UDS"):
            raise ConfigError(
                "BENTOML_NO_UDS is set: the engine would listen on TCP, where whoever reaches it "
                "can run code in it. Unset it."
            )
        configure_logging(settings.log_level)
        # Imported here so that the arbiter and the front never pay for torch.
        from iris.engine.engine import Engine
        from iris.engine.loader import (
            choose_compiled,
            choose_device,
            choose_dtype,
            keep_memory,
            load_components,
            quieten,
            use_one_heap,
            use_threads,
        )
        from iris.engine.lora import install_styles
        from iris.engine.memory import check_memory
        from iris.store.sizes import model_size

        if not sys.stderr.isatty():
            quieten()
        own_cores = max(1, len(os.sched_getaffinity(0)) // _NUM_ENGINES)
        use_threads(settings.cpu_threads or own_cores)
        models = resolve(registry)
        _log.info("loading %s", registry.base.tag)
        device = choose_device(settings.device, self.number)
        use_one_heap(device)
        dtype = choose_dtype(settings.dtype, device)
        check_memory(
            registry.base.name,
            model_size(models.base_path),
            settings.fit,
            device,
            dtype.itemsize,
            engines=_NUM_ENGINES,
        )
        components = load_components(
            models.base_path, device, dtype, settings.fit, is_strict=settings.strict == "on"
        )
        styles = install_styles(
            components.transformer,
            {style.name: style.path for style in models.styles},
            kept_bytes=settings.styles_mb << 20,
        )
        keep_memory(device)
        self._engine = Engine(
            components,
            styles,
            max_waiting=settings.max_waiting,
            max_running=settings.max_running,
            cache_bytes=settings.cache_mb << 20,
            stall_s=settings.stall_s,
            compiled=choose_compiled(settings.compile, device),
            on_hang=_leave,
        )
        self._engine.start()

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=16, max_latency_ms=60_000)
    def admit_generate(self, jobs: list[GenerateJob]) -> list[Admission]:
        return self._engine.admit(jobs)

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=16, max_latency_ms=60_000)
    def admit_edit(self, jobs: list[EditJob]) -> list[Admission]:
        return self._engine.admit(jobs)

    @bentoml.api
    async def quote(self, job: Job) -> Quote | None:
        return self._engine.quote(job)

    @bentoml.api
    async def collect(self, ticket_id: str, ctx: bentoml.Context) -> Outcome:
        """Wait for the picture; whoever stops waiting for it cancels it."""
        return await self._collect(ticket_id, ctx)

    @bentoml.api
    async def run(self, job: Job, ctx: bentoml.Context) -> Refusal | Outcome:
        """Both in one call, for where the next one may reach another engine."""
        (answer,) = await asyncio.to_thread(self._engine.admit, [job])
        if isinstance(answer, Refusal):
            return answer
        return await self._collect(answer.ticket_id, ctx)

    async def _collect(self, ticket_id: str, ctx: bentoml.Context) -> Outcome:
        outcome = asyncio.wrap_future(self._engine.collect(ticket_id))
        try:
            while not outcome.done():
                await asyncio.wait({outcome}, timeout=_COLLECT_POLL_S)
                if not outcome.done() and await ctx.request.is_disconnected():
                    return Failure("backend_error", "Nobody waits for this picture any more.")
            return outcome.result()
        finally:
            self._engine.cancel(ticket_id)

    @bentoml.api
    async def cancel(self, ticket_id: str) -> None:
        self._engine.cancel(ticket_id)

    @bentoml.api
    def serve_styles(self, folders: dict[str, str]) -> str:
        """Empty, or why nothing has changed."""
        try:
            self._engine.serve_styles({name: Path(folder) for name, folder in folders.items()})
        except StoreError as error:
            return error.message
        return ""

    @bentoml.api
    async def health(self) -> EngineHealth:
        return self._engine.health()

    async def __is_alive__(self) -> bool:
        return self._engine.health().alive

    async def __is_ready__(self) -> bool:
        return self._engine.health().ready

    @bentoml.on_startup
    async def drain_before_the_end(self) -> None:
        self._drain = Drain(self._finish)
        self._drain.install()

    async def _finish(self) -> None:
        """Refuse new pictures, and hand out what is in the making or why it is not to be had."""
        if not await asyncio.to_thread(self._engine.drain, _GRACE_S):
            await asyncio.to_thread(self._engine.close)

    @bentoml.on_shutdown
    def close(self) -> None:
        self._engine.close()


def _engine_service(number: int) -> Any:
    """The service of one engine; each has a process of its own."""
    serve = bentoml.service(
        name=f"iris_engine_{number}" if number else "iris_engine",
        workers=1,  # tickets live in one process
        threads=4,
        traffic={"timeout": _TRAFFIC_TIMEOUT_S},
        # BentoML closes a session after 100 requests or 300 s with calls in flight otherwise.
        runner_connection={"max_requests": 10**9, "max_age": 1e9},
        logging={"access": {"enabled": False}},
    )
    declare = declare_models(registry)
    return serve(declare(type("IrisEngine", (IrisEngine,), {"number": number})))


def _leave() -> None:
    """End this process, so that its supervisor starts another: a device that hangs stays hung."""
    time.sleep(_LAST_WORDS_S)
    os._exit(os.EX_SOFTWARE)  # threads that hang would keep an ordinary exit from coming


class FrontKeys:
    """The key ring, opened by the front alone: neither a build nor the engine needs a database."""

    ring: KeyRing

    async def authenticate(self, token: str) -> Key:
        return await self.ring.authenticate(token)


keys = FrontKeys()
app = create_app(settings, registry.catalog(), keys=keys, decoder=Decoder(settings))


class OwnEveryPath:
    """Send every request to our app, before BentoML's own pages, metrics and error bodies."""

    def __init__(self, app: ASGIApp, *, front: ASGIApp) -> None:
        self._bentoml = app
        self._front = front

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await (self._bentoml if scope["type"] == "lifespan" else self._front)(
                scope, receive, send
            )
            return
        has_answered = False

        async def watched(message: Message) -> None:
            nonlocal has_answered
            has_answered = True
            await send(message)

        await self._front(scope, receive, watched)
        if not has_answered:
            # The client is gone, so this reaches nobody; but BentoML's timeout waits for a first
            # message and would keep the request, and a shutdown, until it strikes.
            await Response()(scope, receive, send)


def _dispatcher(engine: Callable[[int], Any]) -> RemoteEngine | Fleet:
    """What hands jobs to the engines: over sockets of this host, or over somebody's network.

    engine: the proxy of an engine by its number. BentoML makes it when it is first asked for.
    """
    if _services().get("iris_engine", "").startswith("http"):
        return SingleCall(engine(0))  # one address, with who knows how many engines behind it
    remotes = [RemoteEngine(engine(number)) for number in range(_NUM_ENGINES)]
    return remotes[0] if len(remotes) == 1 else Fleet(remotes, styles=_folders(registry))


def _styles_now() -> tuple[Registry, dict[str, str]]:
    """What is to be served now, imported and checked, and the folder of each style.

    Raises:
        ConfigError: the base has been changed too.
    """
    found = served_registry(settings)
    if found.base != registry.base:
        raise ConfigError(
            f"The base has changed from {registry.base.tag} to {found.base.tag}. Restart the "
            "service to serve it."
        )
    ensure_registered(found, progress=_log.info)
    return found, _folders(found)


def _folders(found: Registry) -> dict[str, str]:
    """The folder of each style."""
    return {style.name: str(style.path) for style in resolve(found).styles}


def _services() -> dict[str, str]:
    """Where BentoML has started the services, by name."""
    return cast(dict[str, str], json.loads(os.environ.get("BENTOML_RUNNER_MAP", "{}")))


def _depend_on_engines(cls: type[T]) -> type[T]:
    """Class decorator, below `@bentoml.service`: the front has every engine as an attribute.

    BentoML finds what a service depends on among the attributes of its class.
    """
    for number in range(_NUM_ENGINES):
        setattr(cls, f"engine_{number}", bentoml.depends(_engine_service(number)))
    return cls


@bentoml.service(
    name=_FRONT,
    image=container_image(),
    workers=1,
    traffic={"timeout": _TRAFFIC_TIMEOUT_S},
    # Ours say more, and BentoML's would carry raw paths, with whatever a client puts into them.
    logging={"access": {"enabled": False}},
    metrics={"enabled": False},
)
@bentoml.asgi_app(app)
@_depend_on_engines
class EpithreIris:
    """Keys, validation, images in and out; the pictures are the engines'."""

    def __init__(self) -> None:
        configure_logging(settings.log_level)
        database = Database(settings.database_url)
        self._key_file, self._first_secret = ensure_first_key(
            database, settings.home, Limits.of_new_keys(settings)
        )
        keys.ring = KeyRing(database)
        app.state.ledger = Ledger(
            database, settings.home, max_outcome_bytes=settings.replay_mb << 20
        )
        self._pictures = _dispatcher(lambda number: getattr(self, f"engine_{number}").to_async)
        app.state.dispatcher = self._pictures
        app.state.reload = self._reload

    async def _reload(self) -> Catalog:
        """Have the engines load the styles there are now; what is served from then on.

        The base stays the one that runs.
        """
        found, folders = await asyncio.to_thread(_styles_now)
        await self._pictures.serve_styles(folders)
        return found.catalog()

    @bentoml.on_startup
    async def drain_before_the_end(self) -> None:
        self._drain = Drain(self._finish)
        self._drain.install()

    async def _finish(self) -> None:
        """Stay until all that the engine has admitted is handed over; it refuses what is new."""
        begun_s = time.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_S + _LAST_WORDS_S):
                await self._pictures.wait_for_all()
        left_s = max(_LAST_WORDS_S, _GRACE_S - (time.monotonic() - begun_s))
        with suppress(TimeoutError):
            async with asyncio.timeout(left_s):
                await app.state.requests.finished()

    @bentoml.on_startup
    async def announce(self) -> None:
        self._announcing = asyncio.ensure_future(self._announce())

    async def _announce(self) -> None:
        """Say where the service is as soon as it can paint."""
        ready = False
        while not ready:
            await asyncio.sleep(0.2)
            with suppress(BackendUnavailable):
                ready = (await app.state.dispatcher.health()).ready
        url = _services().get(_FRONT, "http://localhost:3000")
        print(welcome(url, self._key_file, self._first_secret), flush=True)


cast(Any, EpithreIris).add_asgi_middleware(OwnEveryPath, front=app)
