"""Every defense at its best parameters, on real digits: no baseline loses for want of tuning.

Each is tuned for the leaderboard's score under two strong attacks, with as many proposals as any
other, on validation data. The best setting then meets three other attacks, on fresh seeds and the
test set: those runs are ranked. What a defense is told of the number of attackers is no parameter
to tune, and neither are counts of samples, epochs and draws. A new file in defenses/ joins by
itself. No download; some hours on two cores.
"""

from __future__ import annotations

from backstop.platform.contract import Search
from backstop.platform.params import Parameter
from backstop.platform.plugins import find
from backstop.platform.specs.part import to_chain
from backstop.search_spaces._defense_settings import defense_settings, task_for

TUNED_ON = (
    "badnets(share=0.2)+model_replacement(strength=3)",
    "badnets(share=0.2)+alie_backdoor(z=3)",
)
RANKED_ON = (
    "dba(share=0.2)+model_replacement(strength=2)",
    "blended(alpha=0.3)+pgd(radius=0.5)+model_replacement(strength=3)",
    "badnets(share=0.3)+neurotoxin+model_replacement(strength=2)",
)
TRIALS = 12


def tune_defenses() -> list[Search]:
    """A search of 12 proposals for each defense; one where there is nothing to tune."""
    return [_tuning(name, text) for name, text in defense_settings().items()]


def _tuning(name: str, defense: str) -> Search:
    declared = find("defenses", name).parameters
    free = [f"defense.{name}.{key}" for key, item in declared.items() if _is_tuned(item)]
    return Search(
        base=task_for(name).replace(defense=to_chain(defense, "defense")),
        free=free,
        objective="score",
        attacks=TUNED_ON,
        confirm_attacks=RANKED_ON,
        trials=TRIALS if free else 1,
        width=4,
        title=name,
    )


def _is_tuned(parameter: Parameter) -> bool:
    """Whether it is a switch, or a number that is no count and has a range to search."""
    if parameter.range is None:
        return bool(parameter.choices) or bool in parameter.types
    return float in parameter.types and parameter.range.search is not None
