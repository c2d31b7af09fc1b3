"""What the paper's three tasks have in common: the federation, the baselines, the two knobs, and
how a task is cut to a small machine.

X. Wang, D. Dimitriadis, S. Koyejo, S. Tople, "Invariant Aggregator for Defending against Federated
Backdoor Attacks", AISTATS 2024; the settings are those of the published code. What it does not tell
(hyper-parameters of baselines, attacks besides the edge case) is ours.
"""

from __future__ import annotations

from collections.abc import Sequence

from backstop.platform.contract import Spec
from backstop.platform.specs.change import grid
from backstop.search_spaces._references import REFERENCES

# 100 clients, 20 of them in a round, every fifth malicious, Dirichlet 0.5, batches of 64, one local
# pass.
FEDERATION = Spec(
    clients=100,
    per_round=20,
    malicious=0.2,
    alpha=0.5,
    batch=64,
    local_epochs=1,
    server_lr=1.0,
    root_size=100,
)
SEEDS = range(3)
# malicious clients in a round on average; what a defense that assumes a number is told
ATTACKERS = 4
THRESHOLDS = (0.0, 0.2, 0.4, 0.6, 0.8)
TRIMS = (0.0, 0.1, 0.2, 0.3, 0.45)


def baselines(norm: float, *, images: bool) -> list[str]:
    """The two references, the paper's baselines, the two halves of its aggregator and the whole;
    ``norm`` is the length of a longer honest update of the task.

    ``trimmed_mean`` is there with the share of attackers, and with the 0.45 of the invariant
    aggregator. FLIP inverts triggers on images.
    """
    return [
        *REFERENCES,
        f"krum(f={ATTACKERS})",
        f"multi_krum(f={ATTACKERS})",
        "rfa",
        "median",
        "trimmed_mean(trim_fraction=0.2)",
        f"norm_clip(norm={norm})",
        f"weak_dp(norm={norm}, noise={norm / 500:g})",
        f"sparsefed(norm={norm})",
        "fltrust",
        "rlr",
        *(["flip"] if images else []),
        "trimmed_mean(trim_fraction=0.45)",
        "and_mask(mask_threshold=0.6)",
        "invariant(mask_threshold=0.6, trim_fraction=0.45)",
    ]


def task(
    base: Spec, attacks: Sequence[str], defenses: Sequence[str], seeds: Sequence[int] = SEEDS
) -> list[Spec]:
    """Every attack × every defense × three seeds, unless told otherwise."""
    return grid(base, seed=seeds, attack=attacks, defense=defenses)


def knobs(
    base: Spec,
    attack: str,
    thresholds: Sequence[float] = THRESHOLDS,
    trims: Sequence[float] = TRIMS,
    seeds: Sequence[int] = SEEDS,
) -> list[Spec]:
    """The invariant aggregator at every threshold τ and trim fraction, and the two references,
    under one attack.
    """
    settings = [
        f"invariant(mask_threshold={threshold}, trim_fraction={trim})"
        for threshold in thresholds
        for trim in trims
    ]
    return grid(base, seed=seeds, attack=[attack], defense=[*REFERENCES, *settings])
