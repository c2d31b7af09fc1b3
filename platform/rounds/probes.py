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
    """The inputs that the model of a round is evaluated on; ``state.probed`` names the draws of an
    attack's own test set.
    """
    attack = views.built.attack
    test = views.built.data.test
    paired = attack.trigger is not None
    if attack.test_set is not None:
        clean = Samples(to_unit_interval(test.x), test.y)
        made = state if state.probed is None else state._replace(round=state.probed)
        view = replace(views.attack(made), test=clean)
        triggered = attack.test_set(state.attack, view)
        return Probe(test, triggered, triggered.paired, aligned=triggered.paired)
    if attack.goal is None:
        return Probe(test, None, paired)
    wanted = attack.goal(state.attack, test.y)
    triggered = TestSet(_triggered(views, state), wanted, test.y)
    return Probe(test, triggered, paired, aligned=True)


def _triggered(views: Views, state: State) -> Tensor:
    """The test inputs under the trigger, or as they are where the attack has none."""
    trigger = views.built.attack.trigger
    x = views.built.data.test.x
    if trigger is None:
        return x
    draws = seeds.generator(views.built.spec.seed, "trigger")
    return stamped(x, lambda piece: trigger(state.attack, piece, draws))
