"""A small real federation in which every attack has to show that it bites: each file of
tests/attacks states a claim, a law tests it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from backstop.platform.contract import Scalar, Spec
from backstop.platform.experiment import Experiment, run
from backstop.platform.laws.arena import ARENA
from backstop.platform.rounds.finals import final
from backstop.platform.specs.change import change_spec
from backstop.platform.specs.part import to_chain

__all__ = (
    "ARENA",
    "Claim",
    "effect",
    "figures",
    "first_rows",
    "last_metrics",
)


class Claim(NamedTuple):
    """What an attack is to show in the arena, against FedAvg unless it is made for a defense, with
    some room to what was measured.

    The effect of an attack is its success rate above that of its clean twin (``dormant``) on the
    same triggered test set; of an untargeted one the accuracy that it costs.
    """

    attack: str  # the chain in which the stage is used
    effect: float  # at least this much
    weaker: str  # the same chain with less of the stage's STRENGTH
    bend: float  # at least this much less effect
    changes: Mapping[str, Scalar] = {}  # of the arena, as ``--set`` takes them
    untargeted: bool = False
    dataset: str = "digits"
    model: str = "mlp"
    defense: str = "fedavg"


def last_metrics(spec: Spec) -> Mapping[str, float]:
    """What the last record of an experiment says."""
    return list(run(spec, folder=Path("unused"), device="cpu"))[-1].metrics


def first_rows(attack: str, **changes: Any) -> tuple[Tensor, Tensor]:
    """The arena's first global model (d,), and what its malicious clients send back (m, d); with
    other fields of the spec.
    """
    spec = ARENA.replace(attack=to_chain(attack, "attack"), **changes)
    experiment = Experiment(spec, Path("unused"), "cpu")
    _, trained, _ = experiment._trained(experiment.state, experiment.built.malicious)
    return experiment.state.params, trained.rows


@cache
def figures(
    attack: str,
    changes: tuple[tuple[str, Scalar], ...] = (),
    *,
    defense: str = "fedavg",
    dormant: bool = False,
) -> Mapping[str, float]:
    """The final figures of an attack in the arena; of its clean twin where ``dormant``."""
    spec = ARENA.replace(
        attack=to_chain(attack, "attack"), defense=to_chain(defense, "defense"), dormant=dormant
    )
    for key, value in changes:
        spec = change_spec(spec, key, value)
    return final(list(run(spec, folder=Path("unused"), device="cpu")))


def effect(claim: Claim, attack: str) -> float:
    """What an attack, the claim's own or the weaker one, does in the arena against the claim's
    clean twin.
    """
    changes = (("dataset", claim.dataset), ("model", claim.model), *claim.changes.items())
    attacked, twin = (
        figures(chain, changes, defense=claim.defense, dormant=dormant)
        for chain, dormant in ((attack, False), (claim.attack, True))
    )
    if claim.untargeted:
        return twin["final/clean_accuracy"] - attacked["final/clean_accuracy"]
    return attacked["final/attack_success_rate"] - twin["final/attack_success_rate"]
