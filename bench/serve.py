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
from collections.abc import Callable
from pathlib import Path

from machine import facts
from server import RESULTS, Server, a_photo


def timed(
    server: Server, route: str, body_of: Callable[[int], dict[str, object]], seeds: range
) -> dict[str, float]:
    """Seconds per picture: over HTTP, and of it in the engine."""
    seconds, engine = [], []
    for seed in seeds:
        body = body_of(seed) | {"seed": seed}
        begun = time.perf_counter()
        reply = server.client.post(route, json=body)
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
    # images and prompts that were sent before would come from the cache

    def generate(**fields: object) -> Callable[[int], dict[str, object]]:
        return lambda seed: base | {"prompt": f"{base['prompt']}, {seed}"} | fields

    def edit(images: int) -> Callable[[int], dict[str, object]]:
        def body(seed: int) -> dict[str, object]:
            photos = [a_photo(704, 704, seed + 100 * i) for i in range(images)]
            return generate()(seed) | ({"images": photos} if images > 1 else {"image": photos[0]})

        return body

    generations, edits = "/v1/images/generations", "/v1/images/edits"
    cases: dict[str, tuple[str, Callable[[int], dict[str, object]]]] = {
        "768x768, 4 steps": (generations, generate()),
        "768x768, 4 steps, guidance 2": (generations, generate(guidance_scale=2.0)),
        "768x768, 4 steps, style": (generations, generate(lora="dark")),
        "960x960, 4 steps": (generations, generate(size="960x960")),
        "edit 704x704, strength 0.75": (edits, edit(1)),
        "edit 704x704, 3 references": (edits, edit(3)),
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
        for name, (route, body_of) in cases.items():
            timed(server, route, body_of, range(1))
            result[name] = timed(server, route, body_of, range(1, args.pictures + 1))
            print(f"{name}: {result[name]}", flush=True)
        server.stop()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
