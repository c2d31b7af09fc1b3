"""What the methods are for, as short real experiments on digits with fixed seeds: attacks bite, and
invariant holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import pytest

from backstop.platform.experiment import run
from backstop.platform.rounds.finals import final
from backstop.platform.specs.part import to_chain
from backstop.search_spaces.quickstart import BASE

SHORT = BASE.replace(rounds=40)


@lru_cache
def finals(
    attack: str, defense: str = "fedavg", *, dormant: bool = False, seed: int = 0
) -> Mapping[str, float]:
    """The final metrics of a short experiment."""
    stages = {"attack": to_chain(attack, "attack"), "defense": to_chain(defense, "defense")}
    spec = SHORT.replace(**stages, dormant=dormant, seed=seed)
    return final(list(run(spec, folder=Path("unused"), device="cpu")))


@pytest.mark.parametrize(
    ("attack", "margin"),
    [
        ("badnets(share=0.2)", 0.8),
        ("badnets(share=0.2, source=3)+model_replacement(strength=3)", 0.5),
        ("label_flip(source=1, target=7)+model_replacement(strength=5)", 0.7),
        ("edge_case(source=7, target=0, share=1.0)+model_replacement(strength=5)", 0.4),
    ],
)
def test_an_attack_beats_its_clean_twin(attack: str, margin: float) -> None:
    """The clean twin trains as if nobody attacked, and is judged on the same triggered test set."""
    attacked, twin = finals(attack), finals(attack, dormant=True)
    assert attacked["final/attack_success_rate"] > twin["final/attack_success_rate"] + margin
    assert twin["final/clean_accuracy"] > 0.95


def test_strength_bends_the_curve() -> None:
    success = [
        finals(f"badnets(share=0.05)+model_replacement(strength={strength})", "and_mask")[
            "final/attack_success_rate"
        ]
        for strength in (1, 3, 10)
    ]
    assert success[0] + 0.1 < success[-1]
    assert success == sorted(success)


@pytest.mark.parametrize("seed", [0, 1])
def test_invariant_beats_fedavg_and_needs_both_of_its_parts(seed: int) -> None:
    attack = "badnets(share=0.2)+model_replacement(strength=3)"
    undefended, invariant, mask, trimmed = (
        finals(attack, defense, seed=seed)
        for defense in (
            "fedavg",
            "invariant",
            "and_mask(mask_threshold=0.6)",
            "trimmed_mean(trim_fraction=0.45)",
        )
    )
    assert undefended["final/attack_success_rate"] > 0.95
    assert invariant["final/attack_success_rate"] < undefended["final/attack_success_rate"] - 0.5
    assert invariant["final/clean_accuracy"] > undefended["final/clean_accuracy"] - 0.06
    assert invariant["final/attack_success_rate"] < mask["final/attack_success_rate"] - 0.2
    assert invariant["final/attack_success_rate"] < trimmed["final/attack_success_rate"]
