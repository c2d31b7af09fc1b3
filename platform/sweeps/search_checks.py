"""What is wrong with a search by itself, before anything is read or run."""

from __future__ import annotations

from collections.abc import Sequence

from backstop.platform.params import BadInput
from backstop.platform.specs.part import to_chain
from backstop.platform.specs.search import Search
from backstop.platform.sweeps.objectives import read_objectives


def check_search(search: Search) -> None:
    """Raise BadInput for numbers, seeds, attacks and rungs that no search can have."""
    for name in ("trials", "width"):
        if getattr(search, name) < 1:
            raise BadInput(f"search: {name}={getattr(search, name)} is not allowed; at least 1")
    if not search.seeds:
        raise BadInput("search: seeds are empty; each proposal is run for one seed at least")
    _check_disjoint(search.seeds, search.confirm)
    _check_attacks(search)
    _check_rungs(search)


def _check_disjoint(seeds: Sequence[int], confirm: Sequence[int]) -> None:
    """What confirms a winner must not have chosen it."""
    seen = sorted(set(seeds) & set(confirm))
    if seen:
        listed = ", ".join(map(str, seen))
        raise BadInput(
            f"search: seed {listed} is among the seeds of the search and among those that confirm"
            " its winner; confirm it on seeds that the search never sees"
        )


def _check_attacks(search: Search) -> None:
    """Attacks are proposed or given; each text is one that can be read."""
    proposed = [key for key in (*search.free, *search.choices) if key.startswith("attack.")]
    proposed += [key for key in search.choices if key in ("attack", "attack+")]
    if proposed and (search.attacks or search.confirm_attacks):
        raise BadInput(
            f"search: {proposed[0]!r} is proposed, and attacks are given; keep one of them"
        )
    for text in (*search.attacks, *search.confirm_attacks):
        to_chain(text, "attack")


def _check_rungs(search: Search) -> None:
    rungs = list(search.rungs)
    if not rungs:
        return
    if rungs != sorted(set(rungs)) or not 0 < rungs[0] <= rungs[-1] < 1:
        raise BadInput(
            f"search: rungs={tuple(rungs)} are not allowed; shares of the rounds between 0 and 1,"
            " in ascending order"
        )
    steering = [item.name for item in read_objectives(search.objectives) if not item.clocked]
    if len(steering) > 1:
        raise BadInput(
            f"search: rungs need one objective to tell the better half by, not"
            f" {', '.join(steering)}"
        )
