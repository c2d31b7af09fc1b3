"""The strongest attack that a search finds against every defense, on real digits: trigger, stages,
strength, share of poison, schedule and, where a stage has them, decoys among the malicious rows; as
much search for each defense as for any other, beginning with four known attacks.

The aim is excess success at stealth: the attack's success above what its inputs achieve unattacked,
with at most 2 points of clean accuracy lost beside the same defense without attack. A new file in
defenses/ joins by itself. The winners are run again on six fresh seeds and the test set,
enough for 95 % intervals. No download; an hour or two on two cores.
"""

from __future__ import annotations

from backstop.platform.contract import Scalar, Search
from backstop.platform.specs.part import to_chain
from backstop.search_spaces._defense_settings import defense_settings, task_for

TRIGGERS = ("badnets", "blended(alpha=0.3)", "dba", "semantic(source=7, tail=0.5)")
STAGES = (
    "model_replacement",
    "none",
    "pgd+model_replacement",
    "neurotoxin+model_replacement",
    "constrain_and_scale(falling=false)",
    "alie_backdoor",
    "threedfed",
    "mask_budget",
    "sign_aligned",
    "adaptive",
)
FREE = (
    "attack.badnets.share",
    "attack.blended.share",
    "attack.dba.share",
    "attack.semantic.share",
    "attack.model_replacement.strength",
    "attack.pgd.radius",
    "attack.neurotoxin.top",
    "attack.constrain_and_scale.alpha",
    "attack.constrain_and_scale.strength",
    "attack.alie_backdoor.z",
    "attack.threedfed.scale",
    "attack.threedfed.decoys",
    "attack.mask_budget.mask_threshold",
    "attack.mask_budget.budget",
    "attack.sign_aligned.strength",
    "attack.adaptive.margin",
)
# where the task's honest updates are 0.2 to 0.7 long
RANGES = {
    "attack.model_replacement.strength": (1.0, 20.0),
    "attack.pgd.radius": (0.1, 3.0),
    "attack.constrain_and_scale.strength": (1.0, 20.0),
    "attack.threedfed.scale": (1.0, 20.0),
    "attack.threedfed.decoys": (0.0, 0.5),  # of the malicious rows that do not push
}
# strong attacks of the other spaces, all behind one trigger: what is found is no weaker
KNOWN_STAGES: tuple[dict[str, Scalar], ...] = (
    {"attack+": "model_replacement", "attack.model_replacement.strength": 3.0},
    {"attack+": "alie_backdoor", "attack.alie_backdoor.z": 3.0},
    {"attack+": "sign_aligned", "attack.sign_aligned.strength": 10.0},
    {"attack+": "adaptive", "attack.adaptive.margin": 0.6},
)
KNOWN_TRIGGER: dict[str, Scalar] = {
    "attack": "badnets",
    "attack_start": 0,
    "attack_every": 1,
    "attack.badnets.share": 0.2,
}
STEALTH = "accuracy_lost <= 0.02"
FRESH_SEEDS = range(100, 106)


def worst_case() -> list[Search]:
    """A search of 24 proposals for each defense."""
    return [_against(name, text) for name, text in defense_settings().items()]


def _against(name: str, defense: str) -> Search:
    return Search(
        base=task_for(name).replace(defense=to_chain(defense, "defense")),
        choices={
            "attack": TRIGGERS,
            "attack+": STAGES,
            "attack_start": (0, 30),
            "attack_every": (1, 2),
        },
        free=FREE,
        ranges=RANGES,
        first=[KNOWN_TRIGGER | stages for stages in KNOWN_STAGES],
        objective="excess_success",
        constraints=(STEALTH,),
        trials=24,
        width=4,
        confirm=FRESH_SEEDS,
        title=name,
    )
