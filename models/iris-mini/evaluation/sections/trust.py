"""How far the judge itself can be trusted."""

from __future__ import annotations

from statistics import fmean

from evaluation import measures
from evaluation.ceiling import SIZES, ceiling
from evaluation.ledger import Ledger
from evaluation.probe import Seen
from evaluation.score import Tally
from evaluation.sections.cases import Result, draws
from evaluation.view import view
from world.sampling import sample_full


def probe(ledger: Ledger, count: int, seed: int) -> Result:
    """How far the probe can be trusted: on real pictures, and after the autoencoder."""
    rng = draws(seed, "probe")
    coded = Tally()
    apart = []
    for i in range(min(count, 100)):
        scene = sample_full(rng, unseen=bool(i % 2)).target
        picture = view(scene, *SIZES[i % len(SIZES)])
        back = ledger.maker.round_trip(picture)
        apart.append(measures.difference(picture, back))
        coded.add(Seen.of(scene).agrees(ledger.probe([back])[0]))
    return {
        "real": ceiling(ledger.probe, 4 * count, seed),
        "through_autoencoder": coded.rates() | {"difference": round(fmean(apart), 4)},
    }
