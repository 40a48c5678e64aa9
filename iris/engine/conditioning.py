"""What a picture is made from: prompts and images, turned into tokens for the transformer."""

from __future__ import annotations

import hashlib
import logging
import re
import threading
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from iris.engine import metrics
from iris.engine.activity import Activity
from iris.engine.cache import Cache, Key
from iris.engine.canvas import Canvas
from iris.engine.denoiser import Denoiser, Row
from iris.engine.encoder import ImageEncoder
from iris.engine.floor import least_rows
from iris.engine.latents import Grid
from iris.engine.loader import Components
from iris.engine.memory import with_room
from iris.engine.pointwise import Pointwise
from iris.engine.quantised import EightBitLinear
from iris.engine.replay import Recorder, Replay
from iris.engine.streaming import StreamedBlocks
from iris.engine.transfer import upload
from iris.jobs import EditJob, Job, Pixels

_log = logging.getLogger("iris.engine")

Layer = Callable[[nn.Module, Tensor, Tensor, tuple[Tensor, Tensor]], Tensor]
_PLACE = "PROMPT-GOES-HERE"
# More at once would be hardly faster, and with a large encoder on a CPU seem like one that hangs.
_MOST_TOGETHER = 4


class PromptEncoder:
    """Prompts -> embeddings, several prompts in one forward pass.

    Safe to call from several threads.
    """

    def __init__(self, components: Components, *, compiled: bool = False) -> None:
        """compiled: what lies between matrix products is, by `warm`, where it records."""
        self._model = components
        self._is_compiled = compiled
        self._lock = threading.Lock()  # fast tokenizers carry state between calls
        text = components.tokenizer.apply_chat_template(
            [{"role": "user", "content": _PLACE}],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
        before, _, after = text.partition(_PLACE)
        self._before: list[int] = components.tokenizer(before)["input_ids"]
        self._after: list[int] = components.tokenizer(after)["input_ids"]
        markup = components.tokenizer.get_added_vocab()  # special or not: all are matched whole
        self._markup = re.compile("|".join(map(re.escape, markup)) or r"(?!)")
        self._unconditional: Tensor | None = None
        kinds = (nn.Linear, EightBitLinear)
        layers = [m for m in components.text_encoder.modules() if isinstance(m, kinds)]
        # A prompt of fewer tokens than the floor would round otherwise in company than alone.
        is_high = components.text_tokens >= least_rows(layers, components.text_device)
        is_steady = is_high and not components.is_strict
        self.most_together = _MOST_TOGETHER if is_steady else 1  # prompts in a pass
        self._replay: Replay | None = None

    @torch.inference_mode()
    def warm(self) -> None:
        """On CUDA, record one prompt's way through the text encoder, before anybody waits.

        Layers in eight bits are recorded as they are. What cannot be recorded is computed call by
        call: weights that come and go, and whatever else fails, which is logged.
        """
        encoder = self._model.text_encoder
        if self._model.text_device.type != "cuda" or isinstance(encoder.layers, StreamedBlocks):
            return
        layer = self._layer
        if self._is_compiled and not any(isinstance(m, EightBitLinear) for m in encoder.modules()):
            layer = torch.compile(layer, dynamic=False, fullgraph=True)  # one graph serves all
        try:
            hidden = partial(self._hidden, layer=layer)
            self._replay = Recorder().record(hidden, self._inputs([""]), warm_calls=2)
        except RuntimeError as error:
            torch.cuda.synchronize()
            _log.warning("the text encoder runs call by call, it cannot be recorded: %s", error)

    def token_ids(self, prompt: str) -> list[int]:
        """The prompt inside the model's chat template, at most `text_tokens` ids, not padded.

        Chat markup that a user typed is text like any other, never a special token. A prompt that
        is too long loses its own end, never the template's.
        """
        ids: list[int] = []
        for piece in self._without_markup(prompt):
            with self._lock:
                ids += self._model.tokenizer(piece, add_special_tokens=False)["input_ids"]
        room = self._model.text_tokens - len(self._before) - len(self._after)
        return self._before + ids[:room] + self._after

    def _without_markup(self, prompt: str) -> list[str]:
        """The prompt cut after the first character of every token that only a template may use."""
        cuts = [0, *(match.start() + 1 for match in self._markup.finditer(prompt)), len(prompt)]
        return [prompt[start:end] for start, end in pairwise(cuts)]

    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Embed prompts: (prompts, text_tokens, width), each the same whatever is beside it.

        The transformer was trained to see the padding too, so all of it is kept.
        Source: Flux2KleinPipeline._get_qwen3_prompt_embeds.
        """
        if self.most_together > 1 and self._replay is None:
            return self._embed(prompts)
        return torch.cat([self._embed([prompt]) for prompt in prompts])

    @torch.inference_mode()
    def _embed(self, prompts: Sequence[str]) -> Tensor:
        embed = self._hidden if self._replay is None else self._replay
        return embed(*self._inputs(prompts)).to(self._model.device, self._model.dtype)

    def _inputs(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """The prompts' tokens, embedded: (prompts, text_tokens, width), and which sees which.

        The mask, (prompts, 1, text_tokens, text_tokens), is laid out here: the library's own way
        to it asks the device whether there is padding at all, and waits for the answer.
        """
        model = self._model
        rows = [self.token_ids(prompt) for prompt in prompts]
        ids = torch.full((len(rows), model.text_tokens), model.tokenizer.pad_token_id)
        is_used = torch.zeros(ids.shape, dtype=torch.bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            is_used[i, : len(row)] = True
        is_used = upload(is_used, model.text_device)
        square = (model.text_tokens, model.text_tokens)
        is_before = torch.ones(square, dtype=torch.bool, device=model.text_device).tril()
        tokens = model.text_encoder.embed_tokens(upload(ids, model.text_device))
        return tokens, is_before & is_used[:, None, None, :]

    def _hidden(self, tokens: Tensor, mask: Tensor, layer: Layer | None = None) -> Tensor:
        """The hidden states that are taken, side by side: (prompts, text_tokens, width).

        layer: does what `_layer` does. Source: transformers, Qwen3Model.forward; its own way is
        not taken for the hooks in it, which catch hidden states and stop a compiler.
        """
        encoder, layer = self._model.text_encoder, layer or self._layer
        positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        rotation = encoder.rotary_emb(tokens, positions)
        states = {0: tokens}
        for number, block in enumerate(encoder.layers, 1):
            tokens = layer(block, tokens, mask, rotation)
            is_last = number == len(encoder.layers)
            if number in self._model.text_layers:
                states[number] = encoder.norm(tokens) if is_last else tokens
        return torch.cat([states[number] for number in self._model.text_layers], dim=-1)

    @staticmethod
    def _layer(
        block: nn.Module, tokens: Tensor, mask: Tensor, rotation: tuple[Tensor, Tensor]
    ) -> Tensor:
        hidden: Tensor = block(tokens, attention_mask=mask, position_embeddings=rotation)
        return hidden

    def unconditional(self) -> Tensor:
        """The embedding of the empty prompt, (1, text_tokens, width), computed once."""
        with self._lock:
            known = self._unconditional
        if known is None:
            known = self.encode([""])
            with self._lock:
                self._unconditional = known
        return known


class Conditioner:
    """Jobs -> rows ready to be stepped, all their prompts through the text encoder at once."""

    def __init__(
        self,
        components: Components,
        denoiser: Denoiser,
        cache: Cache,
        activity: Activity,
        *,
        compiled: bool = False,
    ) -> None:
        """compiled: what lies between matrix products is, by `warm`."""
        self._model = components
        self._denoiser = denoiser
        self._prompts = PromptEncoder(components, compiled=compiled)
        # Compiled on CUDA alone, as prompts are.
        pointwise = Pointwise(compiled=compiled and components.device.type == "cuda")
        self._images = ImageEncoder(components, pointwise)
        self._cache = cache
        self._activity = activity

    def warm(self) -> None:
        """Do at start what would otherwise be done while somebody waits."""
        self._prompts.warm()
        self._images.warm()

    def rows(self, jobs: Sequence[Job]) -> list[Row | Exception]:
        """Condition the jobs; a job that cannot be conditioned gives its exception in its place."""
        prompts = zip(jobs, self.prompts(jobs), strict=True)
        return [one if isinstance(one, Exception) else self.row(job, one) for job, one in prompts]

    def prompts(self, jobs: Sequence[Job]) -> list[Tensor | Exception]:
        """Each job's prompt, (1, text_tokens, width), or why it cannot be had."""
        try:
            embeddings = self._embeddings(jobs)
        except Exception as error:
            if len(jobs) == 1:
                return [error]
        else:
            return [*embeddings]
        # Find the one that fails; outside of the handler: the error holds on to what it failed at.
        return [prompt for job in jobs for prompt in self.prompts([job])]

    def row(self, job: Job, prompt: Tensor) -> Row | Exception:
        """The row of a job whose prompt is encoded, or why there is none; encodes its images."""
        try:
            return self._row(job, prompt)
        except Exception as error:
            return error

    def _embeddings(self, jobs: Sequence[Job]) -> list[Tensor]:
        """Each job's prompt, encoding together what is new to its owner."""
        asked = {(job.owner, job.prompt): None for job in jobs}
        found: dict[tuple[str, str], Tensor] = {}
        for owner, prompt in asked:
            known = self._cache.get(owner, _prompt_key(prompt))
            if known is not None:
                found[owner, prompt] = known
        new = [one for one in asked if one not in found]
        if new:
            prompts = [prompt for _, prompt in new]
            together = self._prompts.most_together
            with metrics.timed("text_encode"):
                embedded = [
                    embedding
                    for first in range(0, len(prompts), together)
                    for embedding in self._encoded(prompts[first : first + together])
                ]
            for (owner, prompt), embedding in zip(new, embedded, strict=True):
                # a copy: a part of the batch would keep all of it in memory
                found[owner, prompt] = embedding[None].clone()
                self._cache.put(owner, _prompt_key(prompt), found[owner, prompt])
        return [found[job.owner, job.prompt] for job in jobs]

    def _encoded(self, prompts: Sequence[str]) -> Tensor:
        with self._activity.section():
            return with_room(lambda: self._prompts.encode(prompts), self._cache)

    def _row(self, job: Job, prompt: Tensor) -> Row:
        read = zip(_images(job), self._model.image_canvases(job), strict=True)
        images = [self._image(job.owner, pixels, canvas) for pixels, canvas in read]

        def prepared() -> Row:
            return self._denoiser.prepare(
                job,
                prompt,
                self._prompts.unconditional() if job.guidance_scale > 1.0 else None,
                images,
                text_tokens=len(self._prompts.token_ids(job.prompt)),
            )

        with self._activity.section():
            return with_room(prepared, self._cache)

    def _image(self, owner: str, pixels: Pixels, canvas: Canvas) -> tuple[Tensor, Grid]:
        digest = hashlib.sha256(pixels.rgb).digest()
        content = pixels.width_px, pixels.height_px, canvas.width_px, canvas.height_px, digest
        tokens = self._cache.get(owner, ("image", content))
        if tokens is None:
            with self._activity.section(), metrics.timed("image_encode"):
                tokens = with_room(lambda: self._images.encode(pixels, canvas), self._cache)
            self._cache.put(owner, ("image", content), tokens)
        return tokens, canvas.grid


def _prompt_key(prompt: str) -> Key:
    return "prompt", hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).digest()


def _images(job: Job) -> tuple[Pixels, ...]:
    return job.images if isinstance(job, EditJob) else ()
