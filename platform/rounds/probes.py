"""The test sets of a round: the clean one, and under attack what the attack makes of it."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from backstop.platform import seeds
from backstop.platform.contract import Samples, TestSet
from backstop.platform.rounds.views import State, Views
from backstop.platform.training.evaluate import Probe, stamped
from backstop.platform.training.network import to_unit_interval


def build_probe(views: Views, state: State) -> Probe:
    """The inputs that the model of a round is evaluated on."""
    attack, test = views.built.attack, views.built.data.test
    if attack.test_set is not None:
        clean = Samples(to_unit_interval(test.x), test.y)
        view = replace(views.attack(state), test=clean)
        return Probe(test, attack.test_set(state.attack, view))
    if attack.goal is None:
        return Probe(test, None, paired=attack.trigger is not None)
    triggered = TestSet(_triggered(views, state), attack.goal(state.attack, test.y), test.y)
    return Probe(test, triggered, paired=attack.trigger is not None)


def _triggered(views: Views, state: State) -> Tensor:
    trigger, x = views.built.attack.trigger, views.built.data.test.x
    if trigger is None:
        return x
    draws = seeds.generator(views.built.spec.seed, "trigger")
    return stamped(x, lambda piece: trigger(state.attack, piece, draws))
