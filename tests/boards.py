"""Made-up runs for the tests of the leaderboard and of the page: plausible figures, the same every
time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from backstop.platform.contract import Spec
from backstop.platform.results.tracking.runs import Run
from backstop.platform.seeds import stream
from backstop.platform.specs.part import parse_chain
from backstop.platform.specs.spec import spec_to_json

ATTACKS = {
    "none": 0.0,
    "badnets(size=3, target=0)": 0.7,
    "badnets(size=3, target=0)+model_replacement(strength=5.0)": 1.0,
    "edge_case(target=0)+model_replacement(strength=5.0)": 0.9,
}
TRIGGERS = ("badnets(size=3, target=0)", "edge_case(target=0)")
DEFENSES = {  # share of the attack's success that is left, cost in accuracy
    "fedavg": (1.0, 0.0),
    "median": (0.45, 0.03),
    "trimmed_mean(trim_fraction=0.2)": (0.5, 0.02),
    "norm_clip(norm=1.0)": (0.3, 0.01),
    "norm_clip(norm=1.0)+median": (0.2, 0.04),
    "krum(f=4)": (0.15, 0.2),
    "multi_krum(f=4)": (0.35, 0.05),
    "and_mask(mask_threshold=0.6)": (0.4, 0.06),
    **{
        f"invariant(mask_threshold={t}, trim_fraction={f})": (
            0.08 + abs(t - 0.6) / 2 + abs(f - 0.2) / 3,
            0.01 + t * t / 12 + f / 20,
        )
        for t in (0.2, 0.4, 0.6, 0.8)
        for f in (0.1, 0.2, 0.3)
    },
}
BASE = Spec(clients=50, per_round=10, rounds=20)


def noise(scale: float, *path: str | int) -> float:
    """Between -scale and scale, the same for the same path."""
    return scale * (2 * (stream(0, *path) % 10**6) / 10**6 - 1)


def run(
    attack: str,
    defense: str,
    seed: int,
    metrics: Mapping[str, float],
    base: Spec = BASE,
    fingerprint: str = "cpu",
    **changes: Any,
) -> Run:
    """A finished run with the given final figures."""
    chain = {
        role: tuple(parse_chain(text)) if text not in ("none", "fedavg") else ()
        for role, text in (("attack", attack), ("defense", defense))
    }
    spec = spec_to_json(base.replace(seed=seed, **chain, **changes))
    name = f"{stream(0, attack, defense, seed, base.rounds, str(sorted(changes))):064x}"
    finals = {f"final/{key}": value for key, value in metrics.items()} | {
        "final/diverged": metrics.get("diverged", 0.0)
    }
    return Run(
        name,
        f"mlflow-{name[-6:]}",
        spec,
        finals,
        {"time/total_train_s": 1.5},
        fingerprint,
        "FINISHED",
    )


def history(
    attack: float, left: float, cost: float, path: Sequence[str | int]
) -> dict[str, list[tuple[int, float]]]:
    """Accuracy and attack success by round."""
    clean, success = [], []
    for step in range(BASE.rounds):
        rise = 1 - math.exp(-(step + 1) / 4)
        clean.append((step, max(0.1, (0.93 - cost) * rise + noise(0.015, *path, "clean", step))))
        success.append(
            (
                step,
                min(1.0, max(0.0, attack * left * rise**2 + noise(0.03, *path, "success", step))),
            )
        )
    return {"round/clean_accuracy": clean, "round/attack_success_rate": success}


def twins(seeds: int) -> list[Run]:
    """The clean twin of each trigger behind every defense."""
    listed = []
    for trigger in TRIGGERS:
        for defense in DEFENSES:
            for seed in range(seeds):
                natural = 0.04 + noise(0.02, "natural", trigger, defense, seed)
                metrics = {"clean_accuracy": 0.93, "attack_success_rate": natural}
                listed.append(run(trigger, defense, seed, metrics, dormant=True))
    return listed


def runs(seeds: int = 2) -> list[Run]:
    """Every attack against every defense, with clean twins."""
    found = []
    for attack, force in ATTACKS.items():
        for defense, (left, cost) in DEFENSES.items():
            for seed in range(seeds):
                curves = history(force, left, cost, (attack, defense, seed))
                metrics = {
                    "clean_accuracy": curves["round/clean_accuracy"][-1][1],
                    "robust_accuracy": 0.9 - 0.8 * force * left,
                    "train_loss": 0.3 + noise(0.1, attack, defense, seed),
                }
                if attack != "none":
                    metrics["attack_success_rate"] = curves["round/attack_success_rate"][-1][1]
                else:
                    del metrics["robust_accuracy"], curves["round/attack_success_rate"]
                found.append(run(attack, defense, seed, metrics)._replace(curves=curves))
    return [*found, *twins(seeds)]
