"""Who is admitted under overload and what they are promised: the scheduler in simulated time.

    python bench/admission.py [--deadlines 10 30 200] [--load 1.2] [--runs 8]

No device and no clock: the same on every machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import fmean, median

sys.path.insert(0, str(Path(__file__).parents[1]))  # of the tests

from tests.engine.simulation import FINALS, MIX, PREVIEWS, TOGETHER, Simulation, p95, random_mix


def seen(runs: Iterable[Simulation]) -> str:
    """The means of the runs, and the least and the most that a kind took over its promise."""
    medians, p95s, finals, returns, ratios = [], [], [], [], []
    kinds: dict[tuple[int, int], list[float]] = {kind: [] for kind in MIX}
    for run in runs:
        previews = [one.took_s for one in run.delivered if one.kind in PREVIEWS]
        asked = [one.finished_at_s is not None for one in run.seen if one.kind in FINALS]
        refused = [one.is_admitted for one in run.seen if one.retry_after_s is not None]
        medians.append(median(previews))
        p95s.append(p95(previews))
        finals.append(fmean(asked))
        returns += [fmean(refused)] if refused else []
        ratios.append(fmean(run.promise_ratios()))
        for one in run.delivered:
            kinds[one.kind].append(one.took_s / one.predicted_s)
    of_kinds = sorted(map(fmean, kinds.values()))
    return (
        f"previews' p50 {fmean(medians):.2f} s, p95 {fmean(p95s):.2f} s; "
        f"finals delivered {fmean(finals):.2f}; let in at their return {fmean(returns):.2f}; "
        f"taken over promised {fmean(ratios):.2f}, by kind {of_kinds[0]:.2f} to {of_kinds[-1]:.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--deadlines", type=float, nargs="+", default=[10.0, 30.0, 200.0])
    parser.add_argument("--load", type=float, default=1.2)
    parser.add_argument("--runs", type=int, default=8)
    options = parser.parse_args()
    for deadline_s in options.deadlines:
        seconds = max(300.0, 3 * deadline_s)
        for together in TOGETHER:
            runs = [
                Simulation(
                    random_mix(options.load, seconds, seed),
                    together=together,
                    deadlines_s=(deadline_s,),
                    returns=True,
                ).run()
                for seed in range(options.runs)
            ]
            print(f"deadline {deadline_s:g} s, together {together}: {seen(runs)}", flush=True)
            alone = [
                Simulation(
                    random_mix(options.load, seconds, seed),
                    together=together,
                    deadlines_s=(deadline_s,),
                ).run()
                for seed in range(3)
            ]
            busy = [run.busy_s / run.now_s for run in alone]
            print(f"  nobody returns: at work for {min(busy):.2f} to {max(busy):.2f} of the time")


if __name__ == "__main__":
    main()
