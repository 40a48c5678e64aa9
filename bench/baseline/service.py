"""The usual way to serve diffusers with BentoML: one pipeline, a lock, a style set per request.

What the engine is compared with. It answers the fields that bench/mix.py sends, one picture after
the other in the order in which they came.
"""

from __future__ import annotations

import base64
import io
import json
import os
import threading
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import bentoml
import torch
from diffusers import Flux2KleinPipeline
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from iris.engine.canvas import Canvas, Sides
from iris.engine.loader import choose_dtype

MINI = Path(__file__).resolve().parents[2] / "models" / "iris-mini"
TEXT_TOKENS, TEXT_LAYERS, TOKEN = 64, (1, 2, 3), 64


class Pipeline:
    """Loaded by the worker; every picture waits for the one before it."""

    def __init__(self) -> None:
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self._lock = threading.Lock()
        # what is fastest here
        dtype = choose_dtype("auto", torch.device("cpu"))
        self._pipeline = Flux2KleinPipeline.from_pretrained(
            MINI / "weights", dtype=dtype, use_safetensors=True
        )
        self._pipeline.set_progress_bar_config(disable=True)
        numbers = json.loads((MINI / "weights" / "iris.json").read_text(encoding="utf-8"))
        self._sides = Sides(**numbers["sides"])
        self._composition_sides = Sides(**numbers["composition_sides"])
        for style in ("dark", "anime"):
            self._pipeline.load_lora_weights(
                MINI / "styles" / style, use_safetensors=True, adapter_name=style
            )

    def make(self, body: dict[str, Any]) -> bytes:
        images = [
            Image.open(io.BytesIO(base64.b64decode(image))).convert("RGB")
            for image in body.get("images", [])
        ]
        asked = tuple(int(side) for side in body["size"].split("x"))
        # as the engine paints it
        sides = self._composition_sides if images else self._sides
        canvas = Canvas.of(*asked, TOKEN, sides)
        style = body.get("lora", "none")
        with self._lock, torch.inference_mode():
            if style == "none":
                self._pipeline.disable_lora()
            else:
                self._pipeline.enable_lora()
                self._pipeline.set_adapters([style], [body["lora_strength"]])
            picture = self._pipeline(
                image=images or None,
                prompt=body["prompt"],
                width=canvas.grid.columns * TOKEN,
                height=canvas.grid.rows * TOKEN,
                num_inference_steps=body["num_steps"],
                guidance_scale=1.0,
                generator=torch.Generator("cpu").manual_seed(body["seed"]),
                max_sequence_length=TEXT_TOKENS,
                text_encoder_out_layers=TEXT_LAYERS,
            ).images[0]
        picture = picture.crop((0, 0, canvas.width_px, canvas.height_px))
        if picture.size != asked:
            picture = picture.resize(asked)
        out = io.BytesIO()
        picture.save(out, "PNG")
        return out.getvalue()


async def images(request: Request) -> Response:
    from starlette.concurrency import run_in_threadpool

    body = await request.json()
    png = await run_in_threadpool(request.app.state.pipeline.make, body)
    return JSONResponse({"data": [{"b64_json": base64.b64encode(png).decode()}]})


async def ready(request: Request) -> Response:
    return Response(status_code=200 if hasattr(request.app.state, "pipeline") else 503)


app = Starlette(
    routes=[
        Route("/v1/images/generations", images, methods=["POST"]),
        Route("/v1/images/edits", images, methods=["POST"]),
        Route("/readyz", ready),
    ]
)


@bentoml.service(name="baseline", workers=1, traffic={"timeout": 3600})
@bentoml.asgi_app(app)
class Baseline:
    """One process that does everything."""

    def __init__(self) -> None:
        app.state.pipeline = Pipeline()
