"""How near the federation of a board is to somebody's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from backstop.platform import plugins
from backstop.platform.advice.situation import Situation, client_sizes
from backstop.platform.advice.trial import MOST_IN_ROUND
from backstop.platform.declarations.facts import Kind
from backstop.platform.params import BadInput
from backstop.platform.results.figures.names import Json, part_label
from backstop.platform.specs.part import Part, parse_part

ALIKE = 1.5  # times larger or smaller, up to which numbers are near


class Aspect(NamedTuple):
    """One thing that two federations may have in common."""

    name: str
    yours: str
    theirs: str
    near: bool


def data_kind(said: Situation) -> Kind:
    """The kind of somebody's data: what its dataset declares, where that is one."""
    if said.data is None:
        return said.kind
    kinds: Sequence[Kind] = plugins.kinds("datasets", parse_part(said.data).name)
    return kinds[0] if len(kinds) == 1 else said.kind


def nearest_setting(document: Json, said: Situation) -> str:
    """The setting of a board that has most in common with a situation, the first of several. Raises
    BadInput where none is of its kind of data.
    """
    kind = data_kind(said)
    alike = {
        key: setting
        for key, setting in document["settings"].items()
        if kind in _kinds(setting["dataset"])
    }
    if not alike:
        known = sorted(
            {part_label(setting["dataset"]) for setting in document["settings"].values()}
        )
        raise BadInput(
            f"the board of {document['experiment']} has no {kind} data, it has {', '.join(known)};"
            " without --read your own federation is tried"
        )

    def common(key: str) -> int:
        return sum(item.near for item in aspects(alike[key], said))

    return str(max(alike, key=common))


def _kinds(dataset: Json) -> Sequence[str]:
    return plugins.kinds("datasets", dataset["name"])


def aspects(setting: Mapping[str, Any], said: Situation) -> list[Aspect]:
    """What the two are like, aspect by aspect."""
    return list(_aspects(setting, said))


def _aspects(setting: Mapping[str, Any], said: Situation) -> Iterator[Aspect]:
    theirs = part_label(setting["dataset"])
    yours = said.data or f"{said.kind} data"
    same = said.data is not None and theirs.startswith(str(Part(parse_part(yours).name)))
    yield Aspect("data", yours, theirs, same and "path" not in setting["dataset"]["params"])
    clients = said.clients or len(client_sizes(said)) or None
    yield _numbers("clients", clients, setting["clients"])
    per_round = said.per_round or (clients and min(clients, MOST_IN_ROUND))
    yield _numbers("clients in a round", per_round, setting["per_round"])
    share = said.attackers / clients if clients else None
    yield _numbers("malicious share", share, setting["malicious"])
    skew = "evenly" if said.skew is None else str(said.skew)
    spread = "evenly" if setting["alpha"] is None else str(setting["alpha"])
    both = [said.skew, setting["alpha"]]
    if all(isinstance(item, (int, float)) for item in both):
        yield _numbers("skew", float(both[0]), float(both[1]))
    else:
        yield Aspect("skew", skew, spread, skew == spread)
    yield _numbers("rounds", said.rounds, setting["rounds"])
    yield _numbers("clean samples", said.server_samples, setting["root_size"])


def _numbers(
    name: str,
    yours: float | None,
    theirs: float,
) -> Aspect:
    """An aspect that is a number; near where neither is much larger."""
    if yours is None:
        return Aspect(name, "as the data has", f"{theirs:g}", False)
    least, most = sorted((yours, theirs))
    return Aspect(name, f"{yours:g}", f"{theirs:g}", most <= ALIKE * least)
