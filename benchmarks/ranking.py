"""What ranking 50,000 runs takes: ``python benchmarks/ranking.py [--seeds 10] [--page]``.

Made-up runs of 50 defenses under 20 attacks in 5 settings over 10 seeds, with their clean twins
behind every defense, each with its curves over 10 evaluations. Printed are the seconds of the
processor and the peak of the memory beside what the runs themselves take, of the document, of its
JSON and, where asked for, of the page.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np

from backstop.platform.contract import Part, Spec
from backstop.platform.results.figures.cells import Entry
from backstop.platform.results.leaderboard.document import encode_document
from backstop.platform.results.leaderboard.ranking import build_document
from backstop.platform.results.report.page import page
from backstop.platform.specs.spec import spec_to_json

DEFENSES, ATTACKS, SETTINGS, SEEDS = 50, 20, 5, 10
STRENGTHS = 4  # of each trigger
ROUNDS = range(0, 50, 5)

Made = TypeVar("Made")


def _specs(seeds: int) -> Iterator[dict[str, Any]]:
    """Attacked specs, and a dormant one for each trigger, as JSON."""
    defenses = [(), *((Part("median", {"knob": knob}),) for knob in range(DEFENSES - 1))]
    for setting in range(SETTINGS):
        base = Spec(rounds=50 + setting)
        for defense in defenses:
            for seed in range(seeds):
                for attack in range(ATTACKS):
                    trigger = Part("badnets", {"size": 1 + attack // STRENGTHS})
                    amplifier = Part("model_replacement", {"strength": 1 + attack % STRENGTHS})
                    spec = base.replace(defense=defense, seed=seed)
                    yield spec_to_json(spec.replace(attack=(trigger, amplifier)))
                    if not attack % STRENGTHS:
                        yield spec_to_json(spec.replace(attack=(trigger,), dormant=True))


def made_up_runs(seeds: int) -> list[Entry]:
    """The runs, with figures around a level of their defense."""
    draws = np.random.default_rng(0)
    return [_run(number, spec, draws) for number, spec in enumerate(_specs(seeds))]


def _run(
    index: int,
    spec: dict[str, Any],
    draws: np.random.Generator,
) -> Entry:
    level = 0.02 if spec["dormant"] else 0.5 + 0.4 * (len(str(spec["defense"])) % 7) / 7
    success = np.clip(draws.normal(level, 0.05, len(ROUNDS)), 0, 1)
    accuracy = np.clip(draws.normal(0.9, 0.02, len(ROUNDS)), 0, 1)
    return Entry(
        id=f"{index:064x}",
        spec=spec,
        metrics={
            "final/clean_accuracy": float(accuracy[-1]),
            "final/attack_success_rate": float(success[-1]),
            "final/start_accuracy": 0.1,
            "final/success_samples": 300.0,
            "final/diverged": 0.0,
        },
        curves={
            "round/attack_success_rate": list(zip(ROUNDS, success.tolist(), strict=True)),
            "round/clean_accuracy": list(zip(ROUNDS, accuracy.tolist(), strict=True)),
        },
    )


def _peak() -> float:
    """MiB that the process has taken at most so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _timed(label: str, make: Callable[[], Made]) -> Made:
    """What ``make`` makes; prints its seconds and the peak of the memory."""
    start = time.process_time()
    made = make()
    print(f"{label:<10} {time.process_time() - start:6.1f} s {_peak():7.0f} MiB at most so far")
    return made


def main() -> None:
    """Make the runs, rank them, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=SEEDS, help="seeds of every cell")
    parser.add_argument("--page", action="store_true", help="make the page too")
    options = parser.parse_args()
    runs = _timed("runs", lambda: made_up_runs(options.seeds))
    print(f"{len(runs)} runs")
    build_document(runs[:1], "warm")  # plug-ins are imported once
    document = _timed("document", lambda: build_document(runs, "made up"))
    text = _timed("JSON", lambda: encode_document(document))
    print(f"{len(text) / 1e6:.0f} MB of JSON")
    if options.page:
        html = _timed("page", lambda: page(document, []))
        print(f"{len(html) / 1e6:.1f} MB of HTML")


if __name__ == "__main__":
    main()
