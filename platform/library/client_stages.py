"""What of an attack can be had at a client that trains in its own way: to poison its data, and to
change what it sends. What needs more is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from backstop.platform import plugins
from backstop.platform.contract import Attack, AttackView
from backstop.platform.examples import attack_view
from backstop.platform.library.lacking import Lacking, Partial
from backstop.platform.params import BadInput
from backstop.platform.specs.notation import NEXT_ADVERSARY
from backstop.platform.specs.part import Part, chains_apart, complete_part, to_chain
from backstop.platform.training.attack_chain import find_trigger_stage

# what a client's view has where it sends; all else is lacking
KNOWN = {"round", "params", "layout", "generator", "members", "poison"}
# field of the view that is lacking → what it takes
OUT_OF_REACH: Mapping[str, str] = {
    "unpoisoned": "what the client would send unpoisoned, which is a second local training",
    "unpoisoned_buffers": "what the client would send unpoisoned, which is a second local training",
    "defend": "the server's defense, which no client has",
    "honest": "the updates of honest clients, which no client sees",
}


@dataclass(frozen=True, kw_only=True)
class SenderView(Partial, AttackView):
    """What a malicious client knows where it sends its model: that model, and the one before."""

    lacking: frozenset[str]


class ClientStages(NamedTuple):
    """The stages of a chain by what they do at a client."""

    poisoning: tuple[Part, ...]  # its data
    crafting: tuple[Part, ...]  # what it sends


def read_client_stages(given: Any, where: str) -> ClientStages:
    """A chain of attack stages. Raises BadInput for what is none, for a parameter that is not
    allowed, and for a stage that needs more than a client has.
    """
    several = isinstance(given, list | tuple) and not isinstance(given, Part)
    for stage in given if several else [given]:
        if not isinstance(stage, str | Part):
            raise BadInput(
                f"{where}: {stage!r} is no stage; give a chain as text,"
                " badnets+model_replacement(strength=5), a backstop.Part, or a list of them"
            )
    parts = to_chain(given, "attack")
    if len(chains_apart(parts)) > 1:
        raise BadInput(
            f"{where}: several adversaries, apart by {NEXT_ADVERSARY}, attack in a federation of"
            " Backstop's own; give the chain of one"
        )
    if not parts:
        raise BadInput(f"{where}: none attacks nothing; give a stage, or leave the call out")
    for part in parts:
        complete_part(part, "attacks")
        reason = _refused(part)
        if reason:
            raise BadInput(
                f"{where}: attack {part.name} {reason}; run it in a federation of Backstop's own:"
                f" backstop run --attack {part.name}"
            )
    find_trigger_stage([attack_stage(part) for part in parts])
    return ClientStages(
        tuple(part for part in parts if attack_stage(part).poison),
        tuple(part for part in parts if _crafts(attack_stage(part))),
    )


def attack_stage(part: Part) -> Attack:
    """The stage itself; made anew, as functions cannot be pickled."""
    stage: Attack = plugins.build("attacks", part.name, part.params)
    return stage


def common_kinds(parts: Sequence[Part]) -> tuple[Any, ...]:
    """The kinds of data that all of the stages are for; empty: any. Raises BadInput for none."""
    kinds: tuple[Any, ...] = ()
    for part in parts:
        own = plugins.kinds("attacks", part.name)
        if kinds and own and not set(kinds) & set(own):
            before = parts[0].name
            raise BadInput(f"attacks {before} and {part.name} are for data of different kinds")
        kinds = tuple(kind for kind in kinds if kind in own) if kinds and own else kinds or own
    return kinds


def sender_view(fields: Mapping[str, Any]) -> SenderView:
    """A view of which a stage sees the fields that a client knows."""
    return SenderView(**fields, lacking=frozenset(set(fields) | {"data"}) - KNOWN)


def _crafts(stage: Attack) -> bool:
    return bool(stage.craft or stage.craft_buffers)


def _refused(part: Part) -> str:
    """Why a client alone cannot have a stage; empty where it can."""
    stage, knows = attack_stage(part), plugins.attack_facts(part.name).knows
    if knows == "all":
        return f"needs {OUT_OF_REACH['honest']}"
    if knows == "defense":
        return f"needs {OUT_OF_REACH['defend']}"
    if stage.plan:
        return "prepares itself from the global model, with Backstop's own local training"
    if stage.train or stage.objective or stage.pace:
        return "changes the steps of local training, which are the client's own"
    if stage.testify and not stage.poison and not _crafts(stage):
        return "answers in validation rounds, which are the server's to hold"
    if not stage.poison and not _crafts(stage):
        return "changes how long or how a client trains, which is the client's own matter"
    lack = _first_lack(stage)
    return f"needs {OUT_OF_REACH.get(lack, lack)}" if lack else ""


def _first_lack(stage: Attack) -> str:
    """The field that crafting asks for and a client has not, tried on a made-up update."""
    view = sender_view(vars(attack_view(torch.zeros(4))))
    for function in filter(None, (stage.craft, stage.craft_buffers)):
        try:
            function(None, torch.ones(1, 4), view)
        except Lacking as lack:
            return lack.field
    return ""
