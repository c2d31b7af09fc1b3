"""What a defense has to be given besides updates, said beforehand and when it is missing."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch

from backstop.platform import plugins, seeds
from backstop.platform.contract import BrokenStage, Defense, Part, Updates
from backstop.platform.laws.views import plain_server_view
from backstop.platform.library.lacking import Lacking
from backstop.platform.library.surroundings import PartialView
from backstop.platform.params import BadInput

# what is needed, in the order in which it is named → how to give it
HOW: Mapping[str, str] = {
    "params": "params=, the global model that the round's clients started from",
    "model": "model=, a torch.nn.Module",
    "root": "root=(x, y), clean samples of the server's own",
    "weights": "weights=, the clients' sample counts",
    "layers": "each update as a list of arrays or a state dict, or model=, to tell the layers",
    "buffers": "updates and params= as state dicts with the statistics of BatchNorm layers",
}
# field of the view → what it takes
BEHIND: Mapping[str, tuple[str, ...]] = {
    "params": ("params",),
    "layout": ("layers",),
    "buffers": ("params", "buffers"),
    "head": ("model",),
    "classes": ("model",),
    "model": ("params", "model"),
    "features": ("params", "model"),
    "train": ("params", "model", "weights"),
    "root": ("root",),
}
# field of the view that nobody can give a library → why
NOWHERE: Mapping[str, str] = {
    "validate": "lets clients score models on their own data, which no call has",
}
DECLARED: Mapping[str, tuple[str, ...]] = {  # a fact of the plug-in → what it takes
    "model": ("params", "model"),
    "root": ("params", "model", "root"),
    "buffers": ("params", "buffers"),
}
ROWS, LENGTH = 12, 24  # of updates that a defense is tried on


def needs_of(part: Part) -> tuple[str, ...]:
    """What a stage has to be given, in the order of :data:`HOW`: what its file declares, and what
    it asks for when it is tried on made-up updates.
    """
    stage: Defense = plugins.build("defenses", part.name, part.params)
    facts = plugins.defense_facts(part.name).needs
    needed = {need for fact in facts for need in DECLARED.get(fact, ())}
    lacking = {"train"} if needed else set(BEHIND)
    while asked := _asked(stage, lacking):  # what is asked for first hides what comes after it
        needed |= {need for field in asked for need in BEHIND[field]}
        lacking -= asked
    return tuple(need for need in HOW if need in needed)


def explain(error: BrokenStage, stages: Collection[Part], given: Collection[str]) -> Exception:
    """BadInput instead of a stage's error where that is a lack: all that the stage needs and is not
    given, in one line.
    """
    cause = error.__cause__
    if not isinstance(cause, Lacking):
        return error
    name = error.stage.removeprefix("defense ")
    if cause.field in NOWHERE:
        return BadInput(f"{error.stage} {NOWHERE[cause.field]}; {elsewhere(name)}")
    needed = set(BEHIND[cause.field])
    for part in stages:
        if part.name == name:
            needed |= set(needs_of(part))
    hints = [how for need, how in HOW.items() if need in needed and need not in given]
    return BadInput(f"{error.stage} needs more than updates; give {'; '.join(hints)}")


def elsewhere(name: str) -> str:
    """What to do with a stage that is no aggregation, in words."""
    return (
        "leave it out here, and run it in a federation of Backstop's own: backstop run --defense"
        f" {name}"
    )


def _asked(stage: Defense, lacking: Collection[str]) -> set[str]:
    """Which of the fields of a view a stage asks for: the first one at its start, in a round, and
    for what it sends.
    """
    whole = plain_server_view(LENGTH)
    view = PartialView(**vars(whole), lacking=frozenset(lacking))
    draws = seeds.generator(0, "needs")
    updates = Updates(
        rows=torch.randn(ROWS, LENGTH, generator=draws),
        weight=torch.ones(ROWS),
        client=torch.arange(ROWS),
    )
    state: list[Any] = []
    asked = _first_lack(lambda: state.append(stage.init(view)))
    if state:
        asked |= _first_lack(lambda: stage.apply(updates, state[0], view))
    if state and stage.send and "params" in lacking:  # nobody is asked to plant anything
        send = stage.send
        asked |= _first_lack(lambda: send(state[0], view))
    return asked


def _first_lack(work: Callable[[], object]) -> set[str]:
    try:
        work()
    except Lacking as lack:
        return {lack.field}
    except Exception:  # noqa: BLE001 -- made-up updates need not suit it, e.g. be enough for its f
        return set()
    return set()
