"""Specs as text, as JSON and as ids: parsing, validation, defaults filled in, and grids of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from itertools import product
from typing import Any, get_type_hints

from backstop.platform import notation, plugins, starts
from backstop.platform.contract import Part, Scalar, Spec
from backstop.platform.optimizers import OPTIMIZERS
from backstop.platform.params import BadInput, Parameter, check, declare, fill, nearest, schema

ENGINE = 2  # raised when the platform's own numbers change; part of every id
NOTHING = {"attack": "none", "defense": "fedavg"}  # the names of the empty chains
DORMANT = ", dormant"  # said after an attack that is only its clean twin
GROUPS = {"dataset": "datasets", "model": "models", "attack": "attacks", "defense": "defenses"}


@lru_cache
def scalars() -> dict[str, Parameter]:
    """The Spec's scalar fields as declared parameters: the options of ``run`` and the keys of ``--set``."""
    hints = get_type_hints(Spec, include_extras=True)
    return {
        item.name: declare(item.name, hints[item.name], item.default) for item in fields(Spec) if hasattr(hints[item.name], "__metadata__")
    }


def value(text: str) -> Scalar:
    """A scalar from its text form: ``3``, ``0.5``, ``true``, ``none``, text that needs no quotes, or quoted text."""
    return notation.read(text)


def parts(text: str) -> tuple[Part, ...]:
    """The stages of a text form such as ``badnets(size=3)+model_replacement(strength=5)``.

    >>> parts("norm_clip(norm=1)+median")
    (Part(name='norm_clip', params={'norm': 1}), Part(name='median', params={}))
    """
    return tuple(Part(name, params) for name, params in notation.stages(text))


def text(stages: Sequence[Part], role: str) -> str:
    """The text form of a chain; the empty chain has a name too (``none``, ``fedavg``)."""
    return "+".join(map(str, stages)) or NOTHING[role]


def title(spec: Spec) -> str:
    """The cell of a spec in words: attack × defense."""
    return f"{text(spec.attack, 'attack')}{DORMANT * spec.dormant} × {text(spec.defense, 'defense')}"


def part(given: Part | str) -> Part:
    """One part from either form."""
    found = parts(given) if isinstance(given, str) else (given,)
    if len(found) != 1:
        raise BadInput(f"{given!r} names {len(found)} plug-ins where exactly one is needed")
    return found[0]


def stages(given: str | Part | Sequence[Part | str], role: str) -> tuple[Part, ...]:
    """A chain from any form, without the stages that do nothing (``none``, ``fedavg``)."""
    if isinstance(given, str) and not given.strip():
        raise BadInput(f"{role} {given!r} names no stage; no {role} at all is {NOTHING[role]}")
    if isinstance(given, str):
        found = parts(given)
    elif isinstance(given, Part):
        found = (given,)
    else:
        found = tuple(part(item) for item in given)
    return tuple(item for item in found if item.name != NOTHING[role])


def complete(given: Part, group: str) -> Part:
    """The part with defaults filled in and every parameter checked."""
    plugin = plugins.find(group, given.name)
    return Part(given.name, fill(plugin.parameters, given.params, f"{plugins.SINGULAR[group]} {given.name}"))


def optimizer(given: Part) -> Part:
    """The optimizer with defaults filled in and every parameter checked."""
    if given.name not in OPTIMIZERS:
        raise BadInput(f"unknown optimizer {given.name!r}; {nearest(given.name, OPTIMIZERS)}")
    return Part(given.name, fill(schema(OPTIMIZERS[given.name]), given.params, f"optimizer {given.name}"))


def validate(spec: Spec) -> Spec:
    """The spec with all defaults filled in, or BadInput. Nothing is loaded and nothing is drawn."""
    spec = spec.replace(**{name: check(parameter, getattr(spec, name), "spec") for name, parameter in scalars().items()})
    spec = spec.replace(
        dataset=complete(spec.dataset, "datasets"),
        model=complete(spec.model, "models"),
        attack=tuple(complete(item, "attacks") for item in stages(spec.attack, "attack")),
        defense=tuple(complete(item, "defenses") for item in stages(spec.defense, "defense")),
        optimizer=optimizer(spec.optimizer),
    )
    if spec.per_round > spec.clients:
        raise BadInput(f"spec: per_round={spec.per_round} is more than clients={spec.clients}; at most all clients train in a round")
    if spec.attack_stop is not None and spec.attack_stop <= spec.attack_start:
        raise BadInput(f"spec: attack_stop={spec.attack_stop} must come after attack_start={spec.attack_start}")
    _check_attackers(spec)
    if spec.dormant and not spec.attack:
        raise BadInput("spec: dormant=True is the clean twin of an attack; attack is none")
    if spec.start is not None and not starts.NAME.fullmatch(spec.start):
        raise BadInput(
            f"spec: start={spec.start!r} is not allowed; start is the name of a kept checkpoint, sha256-…, or none; {starts.HINT}"
        )
    kinds = set(plugins.find("datasets", spec.dataset.name).facts.get("KINDS", ()))
    for group, item in [
        ("models", spec.model),
        *(("attacks", item) for item in spec.attack),
        *(("defenses", item) for item in spec.defense),
    ]:
        takes = plugins.find(group, item.name).facts.get("KINDS")
        if takes is not None and kinds and not kinds & set(takes):
            raise BadInput(
                f"{plugins.SINGULAR[group]} {item.name} takes {' and '.join(takes)} data; dataset {spec.dataset.name} is {' or '.join(sorted(kinds))} data"
            )
    _check_defense(spec)
    triggers = [item.name for item in spec.attack if plugins.find("attacks", item.name).facts.get("TRIGGER")]
    if len(triggers) > 1:
        raise BadInput(f"attack {text(spec.attack, 'attack')}: {' and '.join(triggers)} both define the trigger; keep one of them")
    return spec


def attackers(clients: int, share: float) -> int:
    """Malicious clients in the federation: share · clients, halves rounded up.

    >>> attackers(100, 0.145)  # 14.5, not 14.499…
    15
    """
    return int((Decimal(str(share)) * clients).to_integral_value(ROUND_HALF_UP))


def attackers_per_cohort(clients: int, per_round: int, malicious: int) -> int:
    """Malicious clients in each cohort of a fixed selection: per_round · malicious / clients,
    halves rounded up.
    """
    return (2 * per_round * malicious + clients) // (2 * clients)


def _check_attackers(spec: Spec) -> None:
    """An attack that can never happen would be ranked as one that every defense stops."""
    if not spec.attack:
        return
    if spec.attack_start >= spec.rounds:
        raise BadInput(
            f"spec: attack_start={spec.attack_start} comes after the last of rounds={spec.rounds}"
            f" (they count from 0), so nobody ever attacks; at most {spec.rounds - 1}"
        )
    present = attackers(spec.clients, spec.malicious)
    if not present:
        raise BadInput(
            f"spec: malicious={spec.malicious:g} of clients={spec.clients} is no client at all, so"
            f" nobody ever attacks; at least {0.5 / spec.clients:g}, or attack none"
        )
    in_turn = spec.attackers == "in_turn"  # the cohort holds the attacker, whatever the selection
    drawn = attackers_per_cohort(spec.clients, spec.per_round, present)
    if spec.selection == "fixed" and not drawn and not in_turn:
        raise BadInput(
            f"spec: selection=fixed gives a cohort of per_round={spec.per_round} none of the"
            f" {present} malicious among clients={spec.clients}, so nobody ever attacks; at least"
            f" per_round={-(-spec.clients // (2 * present))}, or selection=random"
        )


def _check_defense(spec: Spec) -> None:
    """What a chain of defenses needs: a root set where a stage asks for one, and rows of the kind that each stage takes."""
    left, by, chain = "clients", "", "+".join(item.name for item in spec.defense)
    predicting: list[str] = []
    for item in spec.defense:
        facts = plugins.find("defenses", item.name).facts
        if "root" in facts.get("NEEDS", ()) and not spec.root_size:
            raise BadInput(f"defense {item.name} needs the server's root set; root_size=0 leaves none, allowed is at least 1")
        switch = facts.get("PREDICTS")
        if switch and item.params[switch]:
            predicting.append(item.name)
        if len(predicting) > 1:
            raise BadInput(
                f"defense {chain}: {' and '.join(predicting)} both say how the final model predicts; keep one of them,"
                f" or turn that off: {item.name}({switch}=0)"
            )
        takes, gives = facts.get("TAKES", "rows"), facts.get("GIVES", "rows")
        if left == "row" and takes != "row":
            raise BadInput(f"defense {chain}: {by} leaves one merged row and {item.name} compares rows; put {item.name} first")
        if left == "mixtures" and takes == "clients":
            raise BadInput(f"defense {chain}: {by} mixes the clients' rows and {item.name} needs each client's own; put {item.name} first")
        if gives != "rows":
            left, by = gives, item.name


def to_json(spec: Spec) -> dict[str, Any]:
    """The spec as plain JSON, field by field: parts are ``{"name", "params"}``."""

    def plain(item: Any) -> Any:
        if isinstance(item, Part):
            return {"name": item.name, "params": dict(sorted(item.params.items()))}
        return [plain(member) for member in item] if isinstance(item, tuple) else item

    return {item.name: plain(getattr(spec, item.name)) for item in fields(Spec)}


def from_json(document: Mapping[str, Any]) -> Spec:
    """The spec that :func:`to_json` wrote, or BadInput."""
    known = {item.name for item in fields(Spec)}
    for name in document:
        if name not in known:
            raise BadInput(f"spec: unknown field {name!r}; {nearest(name, known)}")
    try:
        found: dict[str, Any] = {
            name: tuple(Part(p["name"], p["params"]) for p in item)
            if isinstance(item, list)
            else Part(item["name"], item["params"])
            if isinstance(item, dict)
            else item
            for name, item in document.items()
        }
    except (KeyError, TypeError):
        raise BadInput('spec: a plug-in is written {"name": …, "params": {…}}') from None
    return Spec(**found)


def canonical(spec: Spec) -> str:
    """The canonical JSON: validated, defaults filled in, with the versions of the plug-ins and of the platform's own numbers."""
    spec = validate(spec)
    used = [
        ("datasets", spec.dataset),
        ("models", spec.model),
        *(("attacks", s) for s in spec.attack),
        *(("defenses", s) for s in spec.defense),
    ]
    versions = {f"{group}.{item.name}": plugins.find(group, item.name).version for group, item in used}
    return json.dumps(
        {"spec": to_json(spec), "versions": versions, "engine": ENGINE}, sort_keys=True, separators=(",", ":"), allow_nan=False
    )


def identity(spec: Spec) -> str:
    """Sha256 (hex) of the canonical JSON."""
    return hashlib.sha256(canonical(spec).encode()).hexdigest()


def strength(spec: Spec) -> float | None:
    """The value of the last attack stage that declares a STRENGTH, or None."""
    found = None
    for item in spec.attack:
        name = plugins.find("attacks", item.name).facts.get("STRENGTH")
        if name is not None:
            full = complete(item, "attacks").params[name]
            found = float(full) if isinstance(full, (int, float)) else found
    return found


def change(spec: Spec, key: str, new: Scalar, where: str = "--set") -> Spec:
    """The spec with one thing changed: a scalar (``rounds``; a ``start`` may be the path of a checkpoint), a part (``dataset``, ``attack`` …) in text form,
    a parameter (``defense.invariant.mask_threshold``, ``optimizer.lr``) or ``attack.strength``. ``where`` is the option that asks for it.
    """
    head, *rest = key.split(".")
    known = scalars()
    if key == "start" and isinstance(new, str):
        new = starts.keep(new)
    if not rest and head in known:
        return spec.replace(**{head: check(known[head], new, where)})
    if not rest and head in ("dataset", "model", "optimizer"):
        return spec.replace(**{head: part(str(new))})
    if not rest and head in NOTHING:
        return spec.replace(**{head: stages(NOTHING[head] if new is None else str(new), head)})
    if head in ("dataset", "model", "optimizer") and len(rest) == 1:
        old = getattr(spec, head)
        return spec.replace(**{head: Part(old.name, {**old.params, rest[0]: new})})
    if head in NOTHING and rest:
        return spec.replace(**{head: _change_stage(getattr(spec, head), head, key, rest, new)})
    raise BadInput(f"unknown key {key!r}; {nearest(key, [*known, 'dataset', 'model', 'optimizer', 'attack', 'defense'])}")


def _change_stage(chain: tuple[Part, ...], role: str, key: str, rest: list[str], new: Scalar) -> tuple[Part, ...]:
    found = place(chain, role, rest)
    if found is None:
        known = [f"{role}.{item.name}.…" for item in chain]
        raise BadInput(f"unknown key {key!r} for {role} {text(chain, role)}; {nearest(key, known)}")
    name, parameter = found
    return tuple(Part(name, {**item.params, parameter: new}) if item.name == name else item for item in chain)


def place(chain: Sequence[Part], role: str, rest: Sequence[str]) -> tuple[str, str] | None:
    """The stage and the parameter that a key names after its role (``attack.strength`` is that of the last stage that declares one);
    None where the chain has no such stage.
    """
    if role == "attack" and list(rest) == ["strength"]:
        declared = [(item.name, plugins.find("attacks", item.name).facts.get("STRENGTH")) for item in chain]
        return next(((name, fact) for name, fact in reversed(declared) if fact), None)
    return (rest[0], rest[1]) if len(rest) == 2 and rest[0] in {item.name for item in chain} else None


def has(spec: Spec, key: str) -> bool:
    """Whether a spec has what a key names: the stage in its chain, the parameter of its dataset, model or optimizer."""
    head, *rest = key.split(".")
    if head in NOTHING and rest:
        return place(getattr(spec, head), head, rest) is not None
    if head == "optimizer" and rest:
        return rest[0] in optimizer(Part(spec.optimizer.name)).params
    if head in ("dataset", "model") and rest:
        return rest[0] in complete(Part(getattr(spec, head).name), GROUPS[head]).params
    return True


def grid(base: Spec, **axes: Iterable[Any]) -> list[Spec]:
    """The product of the axes around a base spec, the last axis fastest. Chains and parts may be given as text.

    ``grid(BASE, attack=["none", "badnets"], defense=["fedavg", "median"], seed=range(3))`` is an ordered list of 12 specs.
    """
    listed = {name: list(values) for name, values in axes.items()}
    known = {item.name for item in fields(Spec)}
    for name in listed:
        if name not in known:
            raise BadInput(f"grid: unknown field {name!r}; {nearest(name, known)}")
    found = []
    for combination in product(*listed.values()):
        changes: dict[str, Any] = dict(zip(listed, combination, strict=True))
        for name, given in changes.items():
            if name in NOTHING:
                changes[name] = stages(given, name)
            elif name in ("dataset", "model", "optimizer"):
                changes[name] = part(given)
        found.append(base.replace(**changes))
    return found
