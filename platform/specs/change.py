"""One thing of a spec changed by its key; grids of specs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields
from itertools import product
from typing import Any

from backstop.platform import loose, plugins
from backstop.platform.params import BadInput, check, nearest
from backstop.platform.specs.part import (
    GROUPS,
    NOTHING,
    Part,
    Scalar,
    chain_text,
    complete_part,
    parse_part,
    plugin_stages,
    to_chain,
)
from backstop.platform.specs.spec import Spec, complete_optimizer, scalar_fields

SINGLE_PARTS = ("dataset", "model", "optimizer")


def strength_stage(chain: Sequence[Part]) -> tuple[Part, str] | None:
    """The last stage of an attack that declares a STRENGTH, and the parameter that it names."""
    for stage in reversed(plugin_stages(chain)):
        parameter = plugins.attack_facts(stage.name).strength
        if parameter is not None:
            return stage, parameter
    return None


def attack_strength(spec: Spec) -> float | None:
    """The value that ``attack.strength`` names; None where no stage declares one, or it is none."""
    declared = strength_stage(spec.attack)
    if declared is None:
        return None
    stage, parameter = declared
    strength = complete_part(stage, "attacks").params[parameter]
    return float(strength) if isinstance(strength, (int, float)) else None


def change_spec(
    spec: Spec,
    key: str,
    new: Scalar,
    where: str = "--set",
) -> Spec:
    """The spec with one thing changed, named by its key; ``where`` is the option that asks for it.

    A key names a scalar (``rounds``), a part (``dataset``, ``attack`` …), whose new value is a text
    form, a parameter (``defense.invariant.mask_threshold``, ``optimizer.lr``) or
    ``attack.strength``.
    """
    head, *rest = key.split(".")
    if head in NOTHING and rest:
        chain = _change_stage(getattr(spec, head), head, key, rest, new)
        return spec.replace(**{head: chain})
    if head in SINGLE_PARTS and len(rest) == 1:
        part = getattr(spec, head)
        return spec.replace(**{head: Part(part.name, {**part.params, rest[0]: new})})
    if rest:
        raise _unknown_key(key)
    return _change_whole(spec, head, new, where)


def _change_whole(
    spec: Spec,
    key: str,
    new: Scalar,
    where: str,
) -> Spec:
    """The spec with another scalar, part or chain."""
    scalars = scalar_fields()
    if key in scalars:
        return spec.replace(**{key: check(scalars[key], new, where)})
    if key in SINGLE_PARTS:
        return spec.replace(**{key: parse_part(str(new))})
    if key not in NOTHING:
        raise _unknown_key(key)
    text = NOTHING[key] if new is None else str(new)
    return spec.replace(**{key: to_chain(text, key)})


def _unknown_key(key: str) -> BadInput:
    """What to say of a key that names nothing of any spec."""
    known = [*scalar_fields(), *SINGLE_PARTS, "attack", "defense"]
    return BadInput(f"unknown key {key!r}; {nearest(key, known)}")


def _change_stage(
    chain: tuple[Part, ...],
    role: str,
    key: str,
    rest: list[str],
    new: Scalar,
) -> tuple[Part, ...]:
    named = named_parameter(chain, role, rest)
    if named is None:
        known = [f"{role}.{loose.short_name(stage.name)}.…" for stage in plugin_stages(chain)]
        raise BadInput(
            f"unknown key {key!r} for {role} {chain_text(chain, role)}; {nearest(key, known)}"
        )
    name, parameter = named
    changed = []
    for stage in chain:
        if stage.name == name:
            changed.append(Part(name, {**stage.params, parameter: new}))
        else:
            changed.append(stage)
    return tuple(changed)


def named_parameter(
    chain: Sequence[Part],
    role: str,
    rest: Sequence[str],
) -> tuple[str, str] | None:
    """The stage and the parameter that a key names after its role (``attack.strength`` is that of
    the last stage that declares one); None where the chain has no such stage. A loose file goes by
    its name without digits too.
    """
    if role == "attack" and list(rest) == ["strength"]:
        declared = strength_stage(chain)
        return (declared[0].name, declared[1]) if declared else None
    if len(rest) == 2:
        for stage in chain:
            if rest[0] in (stage.name, loose.short_name(stage.name)):
                return stage.name, rest[1]
    return None


def names_something(spec: Spec, key: str) -> bool:
    """Whether a spec has what a key names: the stage in its chain, the parameter of its dataset,
    model or optimizer.
    """
    head, *rest = key.split(".")
    if head in NOTHING and rest:
        return named_parameter(getattr(spec, head), head, rest) is not None
    if head == "optimizer" and rest:
        return rest[0] in complete_optimizer(Part(spec.optimizer.name)).params
    if head in ("dataset", "model") and rest:
        return rest[0] in complete_part(Part(getattr(spec, head).name), GROUPS[head]).params
    return True


def grid(base: Spec, **axes: Iterable[Any]) -> list[Spec]:
    """The product of the axes around a base spec, the last axis fastest. Chains and parts may be
    given as text.

    ``grid(BASE, attack=["none", "badnets"], defense=["fedavg", "median"], seed=range(3))`` is an
    ordered list of 12 specs.
    """
    listed = {name: list(values) for name, values in axes.items()}
    known = {item.name for item in fields(Spec)}
    for name in listed:
        if name not in known:
            raise BadInput(f"grid: unknown field {name!r}; {nearest(name, known)}")
    specs = []
    for combination in product(*listed.values()):
        changes = {
            name: _field(name, given) for name, given in zip(listed, combination, strict=True)
        }
        specs.append(base.replace(**changes))
    return specs


def _field(name: str, given: Any) -> Any:
    """The value of a spec's field; that of a chain or a part may be given as text."""
    if name in NOTHING:
        return to_chain(given, name)
    if name in SINGLE_PARTS:
        return parse_part(given)
    return given
