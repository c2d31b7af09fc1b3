"""The first suite for laptops: every defense of its day against attacks that bite, on four kinds of
data, over seeds enough for 95 % intervals. A frozen list: its ids are in a test, and another list
is another suite.

Digits (images of 8 x 8, a perceptron), patches (color photographs of 32 x 32, the tutorial's CNN),
topics (made-up documents, a bag of words) and a mixture of Gaussians (a table, a perceptron). One
client in five is malicious, and every cohort holds as many. Each attack's success under FedAvg is
far above its clean twin's. Defenses that assume a number of attackers are told the true one, those
with a norm get one of the task's, where about half of the honest updates are longer in the end.
``flip`` and ``indicator`` have fewer steps than by default, which alone would take longer than all
others. No download; 6,444 runs, by the seconds of single ones about two hours on two cores.
"""

from __future__ import annotations

from typing import NamedTuple

from backstop.platform.contract import Part, Spec
from backstop.platform.specs.change import grid

SEEDS = range(6)
SGD = Part("sgd", {"lr": 0.05, "momentum": 0.9})
DIGITS = Spec(
    dataset=Part("digits"),
    model=Part("mlp"),
    clients=40,
    per_round=20,
    malicious=0.2,
    selection="fixed",
    alpha=10.0,
    rounds=30,
    local_epochs=2,
    batch=16,
    optimizer=SGD,
    root_size=50,
    eval_every=3,
)


class _Task(NamedTuple):
    """A federation, the attacks on it, and what defenses have to be told of it."""

    base: Spec
    attacks: tuple[str, ...]
    attackers: int  # in each cohort
    norm: float  # of an update that is not too long
    model: float  # norm of the trained model


SIGNS = "sign_aligned(strength=1)"
ADAPTED = "adaptive(steps=0)"  # to the defense in use, whatever it is


def _behind(trigger: str, *stages: str) -> tuple[str, ...]:
    """The trigger behind which the poison is sent in several ways."""
    return tuple(f"{trigger}+{stage}" for stage in stages)


def _scaled(strength: float) -> tuple[str, str]:
    """Model replacement, in all coordinates and in those that others hardly move."""
    scaled = f"model_replacement(strength={strength})"
    return scaled, f"neurotoxin+{scaled}"


TASKS = (
    _Task(
        base=DIGITS,
        attacks=(*_behind("badnets(share=0.2)", *_scaled(3), SIGNS, ADAPTED), "dba(share=0.2)"),
        attackers=4,
        norm=0.2,
        model=8.0,
    ),
    _Task(
        base=DIGITS.replace(
            dataset=Part("patches"),
            model=Part("cnn"),
            clients=20,
            per_round=10,
            rounds=20,
        ),
        attacks=(
            "badnets(size=8, share=0.3)+model_replacement(strength=3)",
            "sig(delta=0.3)",
            *_behind("sig(delta=0.3)", SIGNS, ADAPTED),
        ),
        attackers=2,
        norm=0.15,
        model=9.0,
    ),
    _Task(
        base=DIGITS.replace(
            dataset=Part("topics"),
            model=Part("bag_of_words"),
            optimizer=Part("sgd", {"lr": 0.5, "momentum": 0.9}),
        ),
        attacks=("phrase(share=0.3)", *_behind("phrase(share=0.3)", *_scaled(3), ADAPTED)),
        attackers=4,
        norm=1.0,
        model=16.0,
    ),
    _Task(
        base=DIGITS.replace(dataset=Part("synthetic", {"separation": 2.0}), rounds=20),
        attacks=_behind("feature_value(share=0.2)", *_scaled(3), SIGNS, ADAPTED),
        attackers=4,
        norm=0.5,
        model=6.5,
    ),
)
PLAIN = (
    "fedavg",
    "frozen",
    "and_mask",
    "auror",
    "bucketing",
    "clipped_clustering",
    "deepsight",
    "fedprox",
    "fine_pruning",
    "flame",
    "flare",
    "fldetector(window=4, warm=4)",
    "flip(steps=5, samples=16)",
    "fltrust",
    "foolsgold",
    "indicator(samples=200, epochs=100)",
    "invariant",
    "lasa",
    "local_dp",
    "median",
    "nad",
    "neural_cleanse",
    "residual_reweighting",
    "rfa",
    "rflbat",
    "rlr",
    "sign_majority",
    "signguard",
    "simple_clustering",
    "spectral_signatures",
    "trimmed_mean",
)
TOLD_F = (
    "arc",
    "bulyan",
    "caf",
    "dnc",
    "flanders",
    "krum",
    "mda",
    "meamed",
    "monna",
    "multi_krum",
    "nnm",
    "smea",
)
# defenses that look into models of images, or of images and tables
NOT_ON = {
    "deepsight": ("topics",),
    "flip": ("topics", "synthetic"),
    "indicator": ("topics",),
    "neural_cleanse": ("topics", "synthetic"),
}


def _defenses(task: _Task) -> list[str]:
    """All of them, told what they have to be told."""
    dataset = task.base.dataset.name
    noise = task.norm / 100
    plain = [chain for chain in PLAIN if dataset not in NOT_ON.get(chain.partition("(")[0], ())]
    return [
        *plain,
        *(f"{name}(f={task.attackers})" for name in TOLD_F),
        f"centered_clipping(radius={task.norm})",
        f"crfl(norm={task.model}, noise=0.002)",
        f"norm_clip(norm={task.norm})",
        f"sparsefed(norm={task.norm})",
        f"weak_dp(norm={task.norm}, noise={noise:g})",
    ]


def suite_laptop_1() -> list[Spec]:
    """Four tasks × four or five attacks × 44 to 48 defenses × six seeds."""
    return [
        spec
        for task in TASKS
        for spec in grid(task.base, seed=SEEDS, attack=task.attacks, defense=_defenses(task))
    ]
