"""Both picture routes, through one path."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from iris.accounts.ledger import Ledger
from iris.accounts.outcomes import Claim, Replay
from iris.accounts.usage import NO_STYLE, Delivery
from iris.api.auth import KeyRing, authenticate
from iris.api.body import Body, MediaType, read_body
from iris.api.charge import Charge, PaidReply
from iris.api.dispatch import DispatcherSource
from iris.api.idempotency import claim_or_replay, fingerprint, read_token, replay
from iris.api.in_flight import InFlight
from iris.api.record import RequestRecord, record_of
from iris.api.reply import render_reply
from iris.api.resource import Reply
from iris.api.room import Room, Share
from iris.api.schemas import EditBody, GenerateBody, ImageFields, build_job, draw_seed, in_style
from iris.api.sources import Decoder, Sources, decode_sources
from iris.api.validation import read_edit, read_generate
from iris.catalog import Catalog, Offer
from iris.config import Settings
from iris.errors import BackendTimeout, BackendUnavailable
from iris.jobs import Usage
from iris.translation import load_translator, translated

T = TypeVar("T")

_REPLY_S, _REPLY_SHARE = 1.0, 0.05
_PARSERS = 2  # bodies parsed at once, in threads of their own: a reply never waits for a body

LedgerSource = Callable[[], Ledger | None]  # None = not opened yet


@dataclass(frozen=True, slots=True)
class Wire:
    """How the bodies of one route look; all that the two routes differ in on the way in."""

    accepts: tuple[MediaType, ...]
    read: Callable[[Body, tuple[str, ...]], ImageFields]


@dataclass(slots=True)
class _Asked:
    """A request that was read, on its way to its picture. It alone holds on to the sources."""

    record: RequestRecord
    key_id: str
    fields: ImageFields  # without their sources once those are decoded
    catalog: Catalog  # as it was when the request was read
    share: Share
    claim: Claim | None


GENERATIONS = Wire(("application/json",), read_generate)
EDITS = Wire(("application/json", "multipart/form-data"), read_edit)


class Images:
    """Serves POST /v1/images/generations and /v1/images/edits."""

    def __init__(
        self,
        settings: Settings,
        offer: Offer,
        *,
        keys: KeyRing,
        ledger_source: LedgerSource,
        decoder: Decoder,
        dispatcher_source: DispatcherSource,
    ) -> None:
        self._settings = settings
        # Of the deadline, what is kept for PNG and base64 while the engine has all cores busy.
        self._reply_s = min(_REPLY_S, _REPLY_SHARE * settings.deadline_s)
        self._offer = offer
        self._keys = keys
        self._ledger_source = ledger_source
        self._decoder = decoder
        self._dispatcher_source = dispatcher_source
        self._translator = load_translator(settings.translator)
        self._room = Room()
        self._in_flight = InFlight()
        self._parsers = ThreadPoolExecutor(_PARSERS, thread_name_prefix="iris-bodies")

    async def generate(self, request: Request) -> Reply:
        return await self._serve(request, GENERATIONS)

    async def edit(self, request: Request) -> Reply:
        return await self._serve(request, EDITS)

    async def _serve(self, request: Request, wire: Wire) -> Reply:
        record = record_of(request.scope)
        # 1. Who asks. Before the body, so that a stranger cannot make us read 50 MB.
        with record.stage("authenticate"):
            key = await authenticate(request, self._keys)
        record.key_id, record.is_test = key.id, key.is_test
        token = read_token(request)
        with self._room.share(key.id) as share:
            # 2. The body, counted and timed.
            with record.stage("body"):
                body = await read_body(
                    request,
                    accepts=wire.accepts,
                    timeout_s=self._settings.body_timeout_s,
                    share=share,
                    threads=self._parsers,
                )
            # 3. What is asked for.
            with record.stage("validate"):
                catalog = self._offer.catalog
                fields = in_style(wire.read(body, catalog.style_names), catalog)
            _note(record, fields)
            claim = None
            if token is not None:
                claim = Claim(key.id, token, await fingerprint(record.route, body.values))
            # 4. to 7. The picture, as long as somebody waits for it.
            asked = _Asked(record, key.id, fields, catalog, share, claim)
            del body, fields  # up to 50 MB that would stay here while the picture waits its turn
            return await while_connected(request, self._answer(asked))

    async def _answer(self, asked: _Asked) -> Reply:
        """The picture, or what an earlier request with the same Idempotency-Key was given."""
        claim = asked.claim
        ledger = self._ledger_source()
        if ledger is None:
            raise BackendUnavailable("The service is not ready yet. Try again in a while.")
        if claim is not None:
            standing = await claim_or_replay(ledger, claim, self._settings.deadline_s)
            if isinstance(standing, Replay):
                return replay(standing)
        try:
            return await self._make(asked, ledger)
        except BaseException:
            if claim is not None and not asked.record.is_kept:
                ledger.give_up(claim)
            raise

    async def _make(self, asked: _Asked, ledger: Ledger) -> Reply:
        record, claim = asked.record, asked.claim
        deadline_s = time.monotonic() + self._settings.deadline_s
        dispatcher = self._dispatcher_source()
        if dispatcher is None:
            raise BackendUnavailable("The engine is not ready yet. Try again in a while.")
        try:
            async with asyncio.timeout(self._settings.deadline_s) as limit:
                # 4. The source images, before anything is promised to anybody.
                with record.stage("decode"):
                    size_px, images, mask = await self._prepare(asked, ledger)
                fields = asked.fields = asked.fields.without_sources()
                asked.share.give_back()
                translated = await self._translate(fields.prompt)
                record.size = f"{size_px[0]}x{size_px[1]}"
                record.seed = draw_seed(fields)
                # 5. The request is known to be good: its price is set aside, within all limits.
                with record.stage("reserve"):
                    charge = await Charge.reserve(ledger, asked.key_id, record)
                # 6. The engine.
                prompt = asked.catalog.prompt(fields.style, translated)
                job = build_job(
                    fields,
                    request_id=record.request_id,
                    owner=asked.key_id,
                    size_px=size_px,
                    seed=record.seed,
                    prompt=prompt,
                    images=images,
                    mask=mask,
                    deadline_s=max(0.0, deadline_s - time.monotonic() - self._reply_s),
                )
                try:
                    with record.stage("dispatch"):
                        picture = await dispatcher.run(job)
                    # 7. The reply, in a thread: compressing takes longer than the loop may stand.
                    with record.stage("encode"):
                        response = await asyncio.to_thread(
                            render_reply, picture, fields, asked.catalog, charge.cost_idr
                        )
                except BaseException:
                    charge.void()
                    raise
        except TimeoutError:
            if not limit.expired():
                raise
            raise BackendTimeout(
                f"The picture was not finished within {self._settings.deadline_s:g} seconds. "
                "Try fewer steps or a smaller size."
            ) from None
        record.usage = picture.usage
        delivery = _delivery(record, fields, picture.usage)
        if claim is None:
            return PaidReply(response, charge, delivery)
        with record.stage("capture"):
            await charge.keep(delivery, claim, response)
        return response

    async def _translate(self, prompt: str) -> str:
        """The prompt in the language the model reads best, where somebody set up a translator."""
        if self._translator is None:
            return prompt
        return await asyncio.to_thread(translated, self._translator, prompt)

    async def _prepare(self, asked: _Asked, ledger: Ledger) -> Sources:
        """The size of the picture, the source images and the mask."""
        fields = asked.fields
        if isinstance(fields, EditBody):
            async with self._in_flight.place(asked.key_id, ledger.database):
                return await decode_sources(fields, self._decoder, asked.key_id)
        return Sources(fields.size_px or GenerateBody.default_size_px, (), None)


async def while_connected(request: Request, work: Coroutine[object, object, T]) -> T:
    """Do the work unless the client leaves first, which cancels it.

    Raises:
        ClientDisconnect: the client left.
    """
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_left(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    """Return when the client is gone; the body was read, so there is nothing else to receive."""
    while (await request.receive())["type"] != "http.disconnect":
        continue


def _note(record: RequestRecord, fields: ImageFields) -> None:
    """What the request's log line and usage row say of it."""
    record.user = fields.user or None
    record.num_steps = fields.steps
    record.lora = fields.style
    if isinstance(fields, EditBody):
        record.num_images = len(fields.sources)


def _delivery(record: RequestRecord, fields: ImageFields, usage: Usage) -> Delivery:
    """What the usage record says of the picture."""
    return Delivery(
        route="edit" if isinstance(fields, EditBody) else "generation",
        style=fields.style or NO_STYLE,
        size=record.size or "",
        num_steps=fields.steps,
        input_text_tokens=usage.input_text_tokens,
        input_image_tokens=usage.input_image_tokens,
        output_image_tokens=usage.output_image_tokens,
        user_tag=record.user,
    )
