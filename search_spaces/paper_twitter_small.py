"""The paper's text on a small machine: a narrower LSTM, 8 rounds after 200 clean ones, and 40 from
the start; by the seconds of single runs an hour on two cores.
"""

from __future__ import annotations

from backstop.platform.contract import Part, Spec
from backstop.search_spaces import paper_twitter
from backstop.search_spaces._paper import baselines, task

BASE = paper_twitter.BASE.replace(
    dataset=Part("twitter", {"form": "csv", "words": 5000, "test": 2000, "length": 30}),
    model=Part("lstm", {"words": 5000, "dim": 32, "hidden": 32}),
    selection="fixed",
    rounds=8,
    optimizer=Part("adam", {"lr": 0.003}),
    warmup=200,
    eval_every=2,
)
# the model still has to learn: 46 % at first, 67 % at the end without a defense
LEARNING = BASE.replace(warmup=0, rounds=40, eval_every=8)
ATTACKS = [
    "edge_case(share=1.0)",
    "edge_case(share=1.0)+pgd(radius=1.5)+model_replacement(strength=5)",
    "phrase(share=0.5)",
]


def paper_twitter_small() -> list[Spec]:
    """Continuous and strong edge cases, a trigger phrase × 15 defenses × 2 seeds."""
    defenses, seeds = baselines(norm=1.7, images=False), range(2)
    learning = task(LEARNING, ATTACKS[:1], defenses, seeds)
    return [*task(BASE, ATTACKS, defenses, seeds), *learning]
