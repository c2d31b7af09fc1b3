"""The small spaces that are swept: digits, a linear model, a few seconds for each run."""

from __future__ import annotations

from tests.test_sweep import SPACE

SEARCH = """
from backstop.platform.contract import Part, Search, Spec
from backstop.platform.specs.part import to_chain

BASE = Spec(
    model=Part("logistic"), clients=10, per_round=5, rounds={rounds}, batch=16, root_size=20,
    optimizer=Part("sgd", {{"lr": 0.1}}),
)

def little():
    return Search(
        base=BASE.replace(
            attack=to_chain("badnets+model_replacement(strength=3)", "attack"),
            defense=(Part("invariant"),),
        ),
        free=("defense.invariant.mask_threshold", "defense.invariant.trim_fraction"),
        objective="der",
        trials=6,
        width=2,
    )
"""


def grid(rounds: int, seeds: int = 2) -> str:
    """Six runs for each seed: three defenses, under attack and with the clean twin."""
    return SPACE.replace("rounds=6", f"rounds={rounds}").replace("range(2)", f"range({seeds})")


def search(rounds: int) -> str:
    """A search in three generations, and its winner on fresh seeds."""
    return SEARCH.format(rounds=rounds)
