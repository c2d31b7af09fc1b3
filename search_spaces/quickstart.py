"""The first leaderboard: strength × trim fraction × AND-mask threshold over all first defenses, on
real digits.

Seven defenses, FedAvg and a server that never moves the model face a patch backdoor, the same with
model replacement, and, while the backdoor is dormant, no attack, for two seeds. No download; about
a minute on two cores.
"""

from __future__ import annotations

from backstop.platform.contract import Part, Spec
from backstop.platform.specs.change import grid
from backstop.search_spaces._references import REFERENCES

BASE = Spec(
    dataset=Part("digits"),
    model=Part("mlp"),
    clients=40,
    per_round=20,
    malicious=0.2,
    selection="fixed",
    alpha=10.0,
    rounds=60,
    local_epochs=2,
    batch=16,
    optimizer=Part("sgd", {"lr": 0.05, "momentum": 0.9}),
    root_size=50,
    eval_every=3,
)
ATTACKS = [f"badnets(share=0.2)+model_replacement(strength={strength})" for strength in (1, 3)]
DEFENSES = [
    *REFERENCES,
    *(f"trimmed_mean(trim_fraction={trim})" for trim in (0.2, 0.45)),
    *(f"and_mask(mask_threshold={threshold})" for threshold in (0.4, 0.6)),
    *(
        f"invariant(mask_threshold={threshold}, trim_fraction={trim})"
        for threshold in (0.4, 0.6)
        for trim in (0.2, 0.45)
    ),
    "median",
    "norm_clip(norm=0.2)",
    "krum(f=4)",
    "multi_krum(f=4)",
]


def quickstart() -> list[Spec]:
    """Two attacks × fourteen defenses × two seeds, and a clean twin of each pair of the latter:
    84 runs.
    """
    return grid(BASE, seed=range(2), attack=ATTACKS, defense=DEFENSES)
