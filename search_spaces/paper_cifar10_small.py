"""The paper's images on a small machine: the tutorial's CNN on a quarter of CIFAR-10, after 300
clean rounds, and from the start; by the seconds of single runs an hour on two cores.

The triggers poison half of each malicious batch and the patch is 5 x 5: with 8 of 64 and 3 x 3 they
hardly bite within so few rounds. FLIP inverts with fewer samples and steps than by default, which
alone would take longer than everything else.
"""

from __future__ import annotations

from backstop.platform.contract import Part, Spec
from backstop.search_spaces import paper_cifar10
from backstop.search_spaces._paper import baselines, task

BASE = paper_cifar10.BASE.replace(
    dataset=Part("cifar10", {"samples": 12500}),
    model=Part("cnn"),
    selection="fixed",
    rounds=16,
    optimizer=Part("sgd", {"lr": 0.05, "momentum": 0.9}),
    warmup=300,
    eval_every=4,
)
# the model still has to learn
LEARNING = BASE.replace(warmup=0, rounds=100, eval_every=20)
ATTACKS = [
    "edge_case",
    "edge_case+pgd(radius=0.5)+model_replacement(strength=5)",
    "badnets(size=5, share=0.5)",
    "dba(share=0.5)",
]


def paper_cifar10_small() -> list[Spec]:
    """Continuous and strong edge cases, patches, patches in parts × 16 defenses × 3
    seeds.
    """
    defenses = [
        name if name != "flip" else "flip(steps=3, samples=8)"
        for name in baselines(norm=0.7, images=True)
    ]
    learning = task(LEARNING, ATTACKS[:1], defenses, seeds=range(2))
    return [*task(BASE, ATTACKS, defenses), *learning]
