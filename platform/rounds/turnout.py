"""How often the clients that a server asked left it without an honest answer."""

from __future__ import annotations

import torch

from backstop.platform.training.federation import Federation

EMPTY, MALICIOUS_ONLY = "run/empty_rounds", "run/malicious_only_rounds"


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
