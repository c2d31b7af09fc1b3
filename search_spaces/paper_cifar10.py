"""The paper's images: CIFAR-10, Southwest airplanes as trucks, ResNet-18, 300 rounds; its baselines
and the two halves of its aggregator.

Batches of malicious clients are 56 clean images and 8 edge cases. The published run starts from
ImageNet weights: give their file with ``--set start=FILE`` and ``--set 'model=resnet18(norm=batch,
stem=large)'``; as it stands, a warm-up of 100 clean rounds comes first. Clean and poisoned pixels
are on one scale, other than in the published code. Continuous edge cases meet a model that still
has to learn, too. For GPUs: 432 runs of 300 rounds, and three warm-ups.
"""

from __future__ import annotations

from backstop.platform.contract import Part, Spec
from backstop.search_spaces._paper import FEDERATION, baselines, task

BASE = FEDERATION.replace(
    dataset=Part("cifar10"),
    model=Part("resnet18"),
    rounds=300,
    optimizer=Part("sgd", {"lr": 0.01, "momentum": 0.9}),
    warmup=100,
    eval_every=5,
)
LEARNING = BASE.replace(warmup=0)  # the model still has to learn
ATTACKS = [
    "edge_case",
    "edge_case+pgd(radius=2)+model_replacement(strength=5)",
    "badnets(share=0.125)",
    "dba(share=0.125)",
]


def paper_cifar10() -> list[Spec]:
    """Continuous edge cases, strong edge cases (scaled and projected), patches, patches
    in parts × 16 defenses × 3 seeds.
    """
    defenses = baselines(norm=2.0, images=True)
    return [*task(BASE, ATTACKS, defenses), *task(LEARNING, ATTACKS[:1], defenses)]
