"""How often the clients that a server asked left it without an honest answer, and whether all
adversaries ever attacked.
"""

from __future__ import annotations

import torch

from backstop.platform.specs.part import chains_apart
from backstop.platform.training.federation import Federation

EMPTY, MALICIOUS_ONLY = "run/empty_rounds", "run/malicious_only_rounds"
ABSENT = "run/absent_adversaries"


def figures(built: Federation) -> dict[str, float]:
    """The rounds in which nobody answered, and those in which malicious clients alone did; nothing
    where all clients answer. Who answers is a function of the spec, so nothing is counted on the
    way.
    """
    if not built.spec.client_dropout:
        return {}
    counts = {EMPTY: 0.0, MALICIOUS_ONLY: 0.0}
    for round_index in range(built.spec.rounds):
        cohort = built.cohort(round_index)
        if not len(cohort):
            counts[EMPTY] += 1
        elif torch.isin(cohort, built.judged(round_index)).all():
            counts[MALICIOUS_ONLY] += 1
    return counts


def absent_adversaries(built: Federation) -> dict[str, float]:
    """How many of several adversaries had no client in any attacked round, and which, counted from
    1; nothing where all had one. Malicious client number i is adversary i mod k's of k.
    """
    several = len(chains_apart(built.spec.attack))
    if several < 2 or built.spec.dormant:
        return {}
    there: set[int] = set()
    for round_index in range(built.spec.rounds):
        attackers = built.attackers(round_index)
        present = attackers[torch.isin(attackers, built.cohort(round_index))]
        there |= set((torch.searchsorted(built.malicious, present) % several).tolist())
    absent = [number for number in range(several) if number not in there]
    if not absent:
        return {}
    return {
        ABSENT: float(len(absent)),
        **{f"{ABSENT}/{number + 1}": 1.0 for number in absent},
    }
