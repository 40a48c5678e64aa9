"""How many pods an arrival rate needs: the scheduler itself, under random arrivals, simulated.

    python deploy/replicas.py [--preview-s 1.3] [--rates 0.5 1 2 4 8]

A Kubernetes Service sends each connection to a pod at random, so every pod sees random arrivals at
its share of the rate, and one pod tells of all. It is simulated at rising loads; the heaviest that
keeps the goal says how many pods a rate needs.
"""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean, quantiles

from iris.engine.cost import CostModel, Line, Pace
from iris.engine.scheduler import Scheduler, Stage
from iris.engine.work import Work

PREVIEW_PX = 768 * 768
TEXT_TOKENS = 512
PIXELS_PER_TOKEN = 16 * 16
STEP_SHARE = 0.85  # of a preview's time; decoding takes the rest
DEADLINE_S = 300.0  # IRIS_DEADLINE_S
MAX_WAITING, MAX_RUNNING = 64, 8
LOADS = tuple(round(0.05 * step, 2) for step in range(6, 21))
# The goal: of the previews, 19 of 20 take at most so many times what they take alone; and of all
# pictures, at most so many are refused.
MAX_SLOWDOWN = 3.0
MAX_REFUSED = 0.001


@dataclass(frozen=True)
class Kind:
    """A kind of picture, and how often it is asked for."""

    name: str
    share: float
    pixels: int
    num_images: int
    steps: int

    @property
    def tokens(self) -> int:
        return TEXT_TOKENS + (1 + self.num_images) * self.pixels // PIXELS_PER_TOKEN


PREVIEW = Kind("preview", 0.60, PREVIEW_PX, 0, 4)
MIX = (
    PREVIEW,
    Kind("edit", 0.25, 704 * 704, 1, 4),
    Kind("composition", 0.05, 704 * 704, 3, 4),
    Kind("final", 0.10, 960 * 960, 0, 30),
)


@dataclass
class Outcome:
    """What became of the pictures at one load."""

    slowdowns: list[float] = field(default_factory=list)  # of previews: time taken / time alone
    num_asked: int = 0
    num_refused: int = 0

    @property
    def refused(self) -> float:
        return self.num_refused / self.num_asked

    @property
    def p95(self) -> float:
        return quantiles(self.slowdowns, n=20)[-1]

    @property
    def is_good(self) -> bool:
        return self.p95 <= MAX_SLOWDOWN and self.refused <= MAX_REFUSED


def cost_model(preview_s: float) -> CostModel:
    """A device on which a preview alone takes so long: time goes with the tokens."""
    step_s = preview_s * STEP_SHARE / PREVIEW.steps / PREVIEW.tokens
    decode_s = preview_s * (1 - STEP_SHARE) / PREVIEW_PX
    return CostModel(encode=Line(0, 0), step=Line(0, step_s), decode=Line(0, decode_s))


def own_s(cost: CostModel, kind: Kind) -> float:
    """Seconds of the picture on an idle pod."""
    return cost.picture_s(kind.tokens, 1, kind.steps, kind.pixels)


def mean_s(cost: CostModel) -> float:
    """Seconds of a pod's work that a picture of the mix means."""
    return sum(kind.share * own_s(cost, kind) for kind in MIX)


def simulate(cost: CostModel, load: float, num_pictures: int, seed: int = 1) -> Outcome:
    """One pod under random arrivals.

    load: seconds of work that come in each second.
    """
    chance = random.Random(seed)  # noqa: S311  (no secret)
    # with a pace of its own, which it learns
    scheduler = Scheduler(
        replace(cost, pace=Pace()), max_waiting=MAX_WAITING, max_running=MAX_RUNNING
    )
    outcome = Outcome()
    kinds = chance.choices(MIX, [kind.share for kind in MIX], k=num_pictures)
    pauses = (chance.expovariate(load / mean_s(cost)) for _ in kinds)
    asked: dict[str, tuple[float, Kind]] = {}
    now_s = next_s = 0.0
    coming = list(reversed(list(zip(kinds, pauses, strict=True))))
    while coming or scheduler.has_runnable or scheduler.has_stepped:
        is_idle = not (scheduler.has_runnable or scheduler.has_stepped)
        while coming and (next_s + coming[-1][1] <= now_s or is_idle):
            kind, pause_s = coming.pop()
            next_s += pause_s
            now_s = max(now_s, next_s)
            is_idle = False
            ticket_id = str(outcome.num_asked)
            outcome.num_asked += 1
            if scheduler.offer(_work(ticket_id, kind, now_s), now_s).is_admitted:
                scheduler.encoded(ticket_id, now_s)
                asked[ticket_id] = (next_s, kind)
            else:
                outcome.num_refused += 1
        may_decode = scheduler.may_run(Stage.DECODE, now_s)
        decoded = scheduler.next_decode(now_s) if may_decode else None
        works = scheduler.next_round(now_s) if scheduler.may_run(Stage.STEP, now_s) else []
        now_s += cost.step.predict_s(sum(work.tokens for work in works)) if works else 0.0
        if works:
            scheduler.took_a_step(works, now_s)
        if decoded is not None:
            now_s += cost.decode.predict_s(decoded.pixels)
            scheduler.decoded_a_piece(decoded, 1, now_s)
            scheduler.remove(decoded.ticket_id)
            asked_s, kind = asked.pop(decoded.ticket_id)
            if kind is PREVIEW:
                outcome.slowdowns.append((now_s - asked_s) / own_s(cost, kind))
    return outcome


def _work(ticket_id: str, kind: Kind, now_s: float) -> Work:
    return Work(
        ticket_id=ticket_id,
        tokens=kind.tokens,
        passes=1,
        steps_left=kind.steps,
        pixels=kind.pixels,
        image_pixels=0,
        admitted_at_s=now_s,
        deadline_at_s=now_s + DEADLINE_S,
    )


def heaviest_good_load(outcomes: dict[float, Outcome]) -> float:
    """Up to where every load keeps the goal."""
    good = 0.0
    for load, outcome in sorted(outcomes.items()):
        if not outcome.is_good:
            break
        good = load
    return good


def pods_for(rate: float, cost: CostModel, load: float) -> int:
    """Pods for so many pictures a second, each at most so loaded."""
    return max(1, math.ceil(rate * mean_s(cost) / load))


def table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--preview-s", type=float, default=1.3, help="768x768 in 4 steps, alone on a pod of yours"
    )
    parser.add_argument("--rates", type=float, nargs="+", default=[0.5, 1, 2, 4, 8])
    parser.add_argument("--pictures", type=int, default=20_000, help="simulated for each load")
    options = parser.parse_args()
    cost = cost_model(options.preview_s)
    outcomes: dict[float, Outcome] = {}
    for load in LOADS:
        outcomes[load] = simulate(cost, load, options.pictures)
        print(f"load {load:.2f} done", flush=True)
    rows = [
        (f"{load:.2f}", f"{fmean(o.slowdowns):.2f}", f"{o.p95:.2f}", f"{100 * o.refused:.2f} %")
        for load, o in outcomes.items()
    ]
    print(table(("load of a pod", "preview, mean", "19 of 20 within", "refused"), rows))
    load = heaviest_good_load(outcomes)
    print(f"\nHeaviest load that keeps the goal: {load:.2f}; a picture is {mean_s(cost):.2f} s\n")
    pods = [(f"{rate:g}", pods_for(rate, cost, load)) for rate in options.rates]
    print(table(("pictures a second", "pods"), pods))


if __name__ == "__main__":
    main()
