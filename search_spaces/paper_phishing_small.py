"""The paper's table on a small machine: ``paper_phishing`` at ten times the local rate, so that it
moves, after clean rounds and from the start; by the seconds of single runs twenty minutes on two
cores.

Half of each malicious batch are edge cases, where 8 of 64 are published: at that share FedAvg's
attack success rises by a few points only.
"""

from __future__ import annotations

from backstop.platform.contract import Part, Spec
from backstop.search_spaces import paper_phishing
from backstop.search_spaces._paper import baselines, task

BASE = paper_phishing.BASE.replace(
    selection="fixed",
    optimizer=Part("sgd", {"lr": 0.01, "momentum": 0.9}),
    warmup=200,
    eval_every=10,
)
# the model still has to learn: 45 % at first, 89 % at the end without a defense
LEARNING = BASE.replace(warmup=0, rounds=100)
ATTACKS = [
    "edge_case(tail=0.1, share=0.5)",
    "edge_case(tail=0.1, share=0.5)+pgd(radius=0.1)+model_replacement(strength=5)",
    "feature_value(choice=least, count=5, share=0.5)+model_replacement(strength=5)",
]


def paper_phishing_small() -> list[Spec]:
    """Continuous and strong edge cases, feature values × 15 defenses × 3 seeds."""
    defenses = baselines(norm=0.05, images=False)
    return [*task(BASE, ATTACKS, defenses), *task(LEARNING, ATTACKS[:1], defenses)]
