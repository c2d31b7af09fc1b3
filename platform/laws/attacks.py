"""Laws that hold for every attack: each takes its name and raises a breach."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, get_args

import torch
from torch import Tensor

from backstop.platform import plugins
from backstop.platform.contract import Asked, Attack, AttackView, Kind, Samples, TestSet
from backstop.platform.examples import question
from backstop.platform.laws.breach import Law, hold
from backstop.platform.laws.parameters import tries
from backstop.platform.laws.streams import global_states
from backstop.platform.laws.views import (
    LABEL_COUNT,
    allowed,
    plain_attack_view,
    plain_train_view,
    samples,
)
from backstop.platform.params import BadInput
from backstop.platform.seeds import generator

_D = 24


def build_attack(name: str, **params: Any) -> Attack:
    """An attack by name."""
    attack: Attack = plugins.build("attacks", name, params)
    return attack


def kinds_taken(name: str) -> tuple[Kind, ...]:
    """The kinds of data that an attack is for."""
    return plugins.kinds("attacks", name) or get_args(Kind)


def seen(name: str, view: AttackView) -> AttackView:
    """The view as the platform gives it to this stage."""
    return allowed(view, plugins.attack_facts(name).knows)


def start(attack: Attack, view: AttackView) -> Any:
    """The state in the first attacked round."""
    state = None
    if attack.init:
        state = attack.init(replace(view, honest=None, defend=None, members=view.members[:0]))
    return attack.plan(state, view) if attack.plan else state


def poisoned(
    attack: Attack,
    state: Any,
    batch: Samples,
    index: int = 0,
) -> Samples:
    """A batch as an attacking client trains on it."""
    assert attack.poison is not None
    draws = generator(0, "tests", "poison", index)
    return Samples(*attack.poison(state, batch.x, batch.y, index, draws))


def probe(
    attack: Attack,
    state: Any,
    view: AttackView,
    test: Samples,
) -> TestSet | None:
    """The triggered test set as the platform builds it."""
    if attack.test_set is not None:
        return attack.test_set(state, replace(view, test=test))
    if attack.goal is None:
        return None
    x = test.x
    if attack.trigger:
        x = attack.trigger(state, test.x, generator(0, "tests", "trigger"))
    return TestSet(x, attack.goal(state, test.y), test.y)


def same(one: Any, other: Any) -> bool:
    """Equal bytes, through tuples."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return bool(one == other)


def malicious_rows(m: int = 3) -> Tensor:
    """Rows (m, d) that malicious clients have trained."""
    return torch.randn(m, _D, generator=generator(0, "tests", "malicious"))


def has_facts(name: str) -> None:
    """The facts say what the attack does."""
    stated, attack = plugins.attack_facts(name), build_attack(name)
    defines = any((attack.trigger, attack.goal, attack.test_set))
    hold(
        stated.trigger is defines,
        f"what TRIGGER = {stated.trigger} says",
        f"it {'has' if defines else 'has none of'} trigger, goal or test_set",
    )
    hold(
        not (stated.trigger and stated.untargeted),
        "an attack with a trigger or an untargeted one",
        "TRIGGER and UNTARGETED are both true",
    )
    hold(
        attack.test_set is None or (attack.trigger is None and attack.goal is None),
        "either a test set or a trigger and a goal",
        "saw both",
    )
    hold(attack.trigger is None or attack.goal is not None, "a goal of its trigger", "saw none")
    if stated.strength is not None:
        strength = plugins.find("attacks", name).parameters[stated.strength]
        numeric = strength.range is not None and float in strength.types
        hold(numeric, f"STRENGTH={stated.strength!r} to be a number with a range", "it is none")


def keeps_arguments(name: str) -> None:
    """Nothing that is given is changed."""
    for kind in kinds_taken(name):
        attack, view = build_attack(name), seen(name, plain_attack_view(kind))
        batch, test = samples(kind, 16, "batch"), samples(kind, 32, "test")
        rows, honest = malicious_rows(), view.honest if view.honest is not None else 0
        given = (view.params, tuple(view.data), tuple(batch), tuple(test), rows, honest)
        before = pickle.loads(pickle.dumps(given))  # noqa: S301 -- of its own bytes
        state = start(attack, view)
        kept = pickle.loads(pickle.dumps(state))  # noqa: S301
        for _ in _products(attack, state, view, batch, rows):
            pass
        probe(attack, state, view, test)
        hold(same(given, before), "arguments left as they are", f"on {kind} some were changed")
        hold(same(state, kept), "the state passed on and not kept", f"on {kind} it was changed")


def _products(
    attack: Attack,
    state: Any,
    view: AttackView,
    batch: Samples,
    rows: Tensor,
) -> Iterator[Any]:
    """What the stage makes of a batch and of trained rows."""
    if attack.poison:
        yield tuple(poisoned(attack, state, batch))
    if attack.craft:
        yield attack.craft(state, rows, view)
    if attack.craft_buffers:
        yield attack.craft_buffers(state, rows, view)
    if attack.constrain:
        yield attack.constrain(state, rows, 1)
    if attack.testify:
        yield attack.testify(state, asked(view), view)


def asked(view: AttackView) -> Asked:
    """Three clients with their honest answers on five models, of which two are the attack's."""
    scores = torch.rand(3, 5, 2, generator=generator(0, "tests", "answers"), dtype=torch.float64)
    own = torch.tensor([True, False, False, True, False])
    about = question(len(own))
    return Asked(about._replace(models=view.params.repeat(len(own), 1)), own, scores)


def draws_alike(name: str) -> None:
    """The same call gives the same bits, and no global generator is touched."""
    before = global_states()
    for kind in kinds_taken(name):
        attack, results = build_attack(name), []
        for _ in range(2):
            view = seen(name, plain_attack_view(kind))
            state, batch = start(attack, view), samples(kind, 16, "batch")
            results.append(tuple(_products(attack, state, view, batch, malicious_rows())))
        hold(same(*results), "the same bits of the same calls", f"on {kind} saw others")
    touched = [library for library, state in global_states().items() if state != before[library]]
    hold(
        not touched, "draws from the generator given", f"saw draws from the global one of {touched}"
    )


def triggered_inputs(name: str) -> None:
    """The triggered test set has attacked inputs, of the shape and the classes of the data."""
    for kind in kinds_taken(name):
        attack, view = build_attack(name), seen(name, plain_attack_view(kind))
        test = samples(kind, 32, "test")
        triggered = probe(attack, start(attack, view), view, test)
        if triggered is None:
            continue
        attacked = (triggered.wanted >= 0) & (triggered.wanted != triggered.truth)
        hold(attacked.any(), "some test input to be attacked", f"on {kind} saw none")
        shape, expected = tuple(triggered.x.shape[1:]), tuple(test.x.shape[1:])
        hold(shape == expected, f"triggered inputs of {expected}", f"on {kind} saw {shape}")
        legal = bool(((triggered.wanted >= -1) & (triggered.wanted < LABEL_COUNT)).all())
        hold(
            legal,
            f"labels from -1 to {LABEL_COUNT - 1}",
            f"saw {triggered.wanted.unique().tolist()}",
        )
        as_given = torch.equal(triggered.truth, test.y) if triggered.paired else True
        hold(as_given, "a paired test set in the order of the clean one", f"on {kind} saw another")
        if kind == "image":
            low, high = triggered.x.min().item(), triggered.x.max().item()
            hold(low >= 0 and high <= 1, "pixels from 0 to 1", f"saw {low:.3g} to {high:.3g}")


def crafted_rows(name: str) -> None:
    """Crafted rows are finite, of their own shape, and others than the trained ones."""
    exempt = "one row" in plugins.attack_facts(name).exempt
    for kind in kinds_taken(name):
        for m in (1, 3):
            attack, view = build_attack(name), seen(name, plain_attack_view(kind, malicious=m))
            if attack.craft is None:
                return
            rows = malicious_rows(m)
            crafted = attack.craft(start(attack, view), rows, view)
            sound = crafted.shape == rows.shape and crafted.dtype == rows.dtype
            hold(sound, f"rows {tuple(rows.shape)} of float32", f"saw {tuple(crafted.shape)}")
            hold(crafted.isfinite().all(), "finite rows", f"on {kind} saw NaN or infinity")
            changed = not torch.equal(crafted, rows) or (m == 1 and exempt)
            hold(changed, "crafted rows", f"on {kind} {m} rows are as they were: it does nothing")


def answered(name: str) -> None:
    """Answers in a validation round are finite and not the honest ones, but of their shape."""
    for kind in kinds_taken(name):
        attack, view = build_attack(name), seen(name, plain_attack_view(kind))
        if attack.testify is None:
            return
        honest = asked(view)
        said = attack.testify(start(attack, view), honest, view)
        expected, shape = tuple(honest.scores.shape), tuple(said.shape)
        hold(shape == expected, f"answers {expected}", f"saw {shape}")
        hold(said.isfinite().all(), "finite answers", f"on {kind} saw NaN or infinity")
        changed = not torch.equal(said, honest.scores)
        hold(changed, "other answers than the honest ones", f"on {kind} saw those: it does nothing")


def poisoned_batches(name: str) -> None:
    """A poisoned batch has the batch's shape and classes, and is not the batch."""
    for kind in kinds_taken(name):
        attack, view = build_attack(name), seen(name, plain_attack_view(kind))
        if attack.poison is None:
            return
        state, batch = start(attack, view), samples(kind, 16, "batch")
        mine = poisoned(attack, state, batch)
        shapes = (mine.x.shape, mine.y.shape) == (batch.x.shape, batch.y.shape)
        hold(shapes, f"inputs {tuple(batch.x.shape)}", f"saw {tuple(mine.x.shape)}")
        legal = bool(((mine.y >= 0) & (mine.y < LABEL_COUNT)).all())
        hold(legal, f"labels from 0 to {LABEL_COUNT - 1}", f"saw {mine.y.unique().tolist()}")
        changed = not same(tuple(mine), tuple(batch))
        hold(changed, "a poisoned batch", f"on {kind} it is as it was: it does nothing")


def any_parameters(name: str) -> None:
    """Every end of a range runs, or is refused in one line that names it."""
    kind = kinds_taken(name)[0]
    view = seen(name, plain_attack_view(kind))
    for params in tries("attacks", name):
        try:
            attack = build_attack(name, **params)
            state = start(attack, view)
        except BadInput as refusal:
            text = str(refusal)
            named = name in text and all(key in text for key in params) and "\n" not in text
            hold(params and named, f"a line that names {list(params)}", f"saw {text!r}")
            continue
        for product in _products(attack, state, view, samples(kind, 5, "batch"), malicious_rows()):
            values = product if isinstance(product, Tensor) else product[0].double()
            hold(values.isfinite().all(), "finite values", f"{params} gives NaN or infinity")
        if attack.train:
            row = attack.train(state, plain_train_view(kind))
            hold(row.isfinite().all(), "a finite row", f"{params} gives NaN or infinity")
        probe(attack, state, view, samples(kind, 32, "test"))


ATTACK_LAWS: Mapping[str, Law] = {
    "facts": has_facts,
    "arguments": keeps_arguments,
    "draws": draws_alike,
    "triggered inputs": triggered_inputs,
    "crafted rows": crafted_rows,
    "poisoned batches": poisoned_batches,
    "answers": answered,
    "any parameters": any_parameters,
}
