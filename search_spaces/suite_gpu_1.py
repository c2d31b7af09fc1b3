"""The first suite for GPUs: the defenses of ``suite_laptop_1`` on CIFAR-10 with a ResNet-18, warm
and from the start. A frozen list: its ids are in a test, and another list is another suite.

One client in ten is malicious, and every cohort holds as many. The warm setting attacks the model
after 100 clean rounds, in the other it still has to learn. Edge cases are the Southwest airplanes.
Not run yet: norms are guesses from the small task, and which attacks bite is not known.
"""

from __future__ import annotations

from backstop.platform.contract import Part, Spec
from backstop.platform.specs.change import grid
from backstop.search_spaces.suite_laptop_1 import PLAIN, TOLD_F

SEEDS = range(6)
ATTACKERS = 2  # in each cohort
NORM = 2.0  # of an update that is not too long
WARM = Spec(
    dataset=Part("cifar10"),
    model=Part("resnet18"),
    clients=100,
    per_round=20,
    malicious=0.1,
    selection="fixed",
    alpha=0.5,
    rounds=60,
    local_epochs=2,
    batch=64,
    optimizer=Part("sgd", {"lr": 0.05, "momentum": 0.9}),
    root_size=100,
    warmup=100,
    eval_every=5,
)
LEARNING = WARM.replace(warmup=0, rounds=160)
ATTACKS = (
    "badnets(share=0.2)+model_replacement(strength=3)",
    "badnets(share=0.2)+sign_aligned(strength=1)",
    "badnets(share=0.2)+adaptive(steps=0)",
    "edge_case(share=0.5)+pgd(radius=2)+model_replacement(strength=5)",
    "a3fl",
)
DEFENSES = (
    *PLAIN,
    *(f"{name}(f={ATTACKERS})" for name in TOLD_F),
    f"centered_clipping(radius={NORM})",
    "crfl(norm=60, noise=0.002)",
    f"norm_clip(norm={NORM})",
    f"sparsefed(norm={NORM})",
    f"weak_dp(norm={NORM}, noise=0.004)",
)


def suite_gpu_1() -> list[Spec]:
    """Two settings × five attacks × 48 defenses × six seeds."""
    return [
        spec
        for base in (WARM, LEARNING)
        for spec in grid(base, seed=SEEDS, attack=ATTACKS, defense=DEFENSES)
    ]
