"""How long the service takes: to start, and per picture over HTTP, one at a time.

    python bench/serve.py [--pictures 5] [--out bench/results/serve.json]

Starts a real `bentoml serve` of this checkout.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from machine import facts
from server import RESULTS, Server, a_photo


def timed(server: Server, route: str, body: dict[str, object], pictures: int) -> dict[str, float]:
    """Seconds per picture: over HTTP, and of it in the engine."""
    seconds, engine = [], []
    for seed in range(pictures):
        begun = time.perf_counter()
        reply = server.client.post(route, json=body | {"seed": seed})
        seconds.append(time.perf_counter() - begun)
        reply.raise_for_status()
        engine.append(float(reply.headers["x-iris-inference-s"]))
    return {
        "median_s": round(statistics.median(seconds), 3),
        "min_s": round(min(seconds), 3),
        "max_s": round(max(seconds), 3),
        "engine_median_s": round(statistics.median(engine), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pictures", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "serve.json")
    args = parser.parse_args()
    base = {"model": "epithre-iris", "prompt": "a red boat on a calm sea"}
    photo = a_photo(704, 704)
    generations, edits = "/v1/images/generations", "/v1/images/edits"
    cases: dict[str, tuple[str, dict[str, object]]] = {
        "768x768, 4 steps": (generations, base),
        "768x768, 4 steps, guidance 2": (generations, base | {"guidance_scale": 2.0}),
        "768x768, 4 steps, style": (generations, base | {"lora": "dark"}),
        "960x960, 4 steps": (generations, base | {"size": "960x960"}),
        "edit 704x704, strength 0.75": (edits, base | {"image": photo}),
        "edit 704x704, 3 references": (edits, base | {"images": [photo] * 3}),
    }
    with tempfile.TemporaryDirectory() as folder:
        first = Server(Path(folder))
        stop_s = first.stop()
        server = Server(Path(folder))
        result: dict[str, object] = {
            "machine": facts(),
            "start_with_import_s": round(first.ready_s, 1),
            "start_s": round(server.ready_s, 1),
            "stop_s": round(stop_s, 1),
            "pictures_each": args.pictures,
        }
        for name, (route, body) in cases.items():
            timed(server, route, body, 1)
            result[name] = timed(server, route, body, args.pictures)
            print(f"{name}: {result[name]}", flush=True)
        server.stop()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
