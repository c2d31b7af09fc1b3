"""The search: ranges from annotations, a sequence that no worker count can change, and nothing that
is not a number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import optuna
import pytest

from backstop.platform.contract import Part, Search, Spec
from backstop.platform.params import BadInput
from backstop.platform.specs import spec as specs
from backstop.platform.specs.change import attack_strength
from backstop.platform.specs.part import complete_part, to_chain
from backstop.platform.sweeps.queues import Finals, Queue
from backstop.platform.sweeps.search import WORST, Proposals, der

BASE = Spec(attack=to_chain("badnets+model_replacement", "attack"), defense=(Part("invariant"),))
KNOBS = ("defense.invariant.mask_threshold", "defense.invariant.trim_fraction")


def bowl(spec: Spec) -> Finals:
    """Pretended results: best at threshold 0.5 and trim 0.3."""
    if not spec.defense:
        return {"final/attack_success_rate": 1.0, "final/clean_accuracy": 0.9}
    knobs = complete_part(spec.defense[0], "defenses").params
    miss = abs(float(str(knobs["mask_threshold"])) - 0.5) + abs(
        float(str(knobs["trim_fraction"])) - 0.3
    )
    return {"final/attack_success_rate": min(1.0, miss), "final/clean_accuracy": 0.9}


def drive(
    search: Search,
    order: int = 1,
    done: dict[str, Finals] | None = None,
    seen: list[tuple[int, int]] | None = None,
) -> Proposals:
    """Answer all generations; ``order`` -1 answers the last question of a generation first.
    ``done`` are finished runs, to which those of this search are added; ``seen`` takes (finished
    before, in all) as the queue counts them in each generation.
    """
    source, done = Proposals(search), {} if done is None else done
    queue = Queue(source, done)
    while queue.fill():
        if seen is not None:
            seen.append((queue.skipped, queue.expected))
        done |= {spec.id: bowl(spec) for spec in queue.waiting}
        for spec in queue.waiting[::order]:
            queue.results[spec.id] = bowl(spec)
        queue.waiting = []
    return source


def test_the_order_in_which_trials_end_does_not_change_the_search() -> None:
    search = Search(base=BASE, free=KNOBS, trials=12, width=4)
    one, other = drive(search), drive(search, order=-1)
    assert len(one.trials) == 12
    assert one.trials == other.trials
    assert drive(Search(base=BASE, free=KNOBS, trials=12, width=4, seed=1)).trials != one.trials


@pytest.mark.parametrize(("short", "long"), [(4, 8), (6, 11), (24, 40)])
def test_a_longer_search_begins_with_the_shorter_one(short: int, long: int) -> None:
    """Of the same store: what is finished is kept, and only what is new is run."""
    first, second = (
        Search(base=BASE, free=KNOBS, trials=trials, width=4, seeds=(0, 3))
        for trials in (short, long)
    )
    done: dict[str, Finals] = {}
    kept = drive(first, done=done).trials
    assert len(done) == 2 * (short + 1)
    seen: list[tuple[int, int]] = []
    assert drive(second, done=done, seen=seen).trials[:short] == kept
    assert len(done) == 2 * (long + 1)
    assert {(skipped, expected) for skipped, expected in seen} == {
        (2 * (short + 1), 2 * (long + 1))
    }


@pytest.mark.parametrize(
    ("base", "free", "at_first", "in_all"),
    [
        (BASE, KNOBS, 13, 13),  # one undefended run for all
        (BASE, (*KNOBS, "attack.strength"), 24, 24),  # an undefended run for each
        # the proposal is its own undefended run
        (BASE.replace(defense=()), ("attack.strength",), 12, 12),
        (BASE.replace(defense=()), ("selection",), 12, 2),  # only two proposals are different
    ],
)
def test_the_runs_of_a_search_are_counted_before_and_after(
    base: Spec, free: tuple[str, ...], at_first: int, in_all: int
) -> None:
    source = Proposals(Search(base=base, free=free, trials=12, width=4))
    assert source.expected() == at_first
    ran: set[str] = set()
    while generation := source.ask():
        ran |= {spec.id for spec in generation}
        source.tell(
            {
                spec.id: {"final/attack_success_rate": 0.5, "final/clean_accuracy": 0.9}
                for spec in generation
            }
        )
    assert source.expected() == len(ran) == in_all


def test_a_search_validates_each_of_its_specs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve, calls = specs._resolve, 0

    def counted(spec: Spec) -> Spec:
        nonlocal calls
        calls += 1
        return resolve(spec)

    monkeypatch.setattr(specs, "_resolve", counted)
    source = drive(Search(base=BASE, free=KNOBS, trials=6, width=3, seeds=(0, 1)))
    assert len(source.trials) == 6
    assert calls == 6 * 2 * 2  # a defended and an undefended one for each proposal and seed


def test_it_searches() -> None:
    source = drive(Search(base=BASE, free=KNOBS, trials=40, width=4))
    best = source.best()
    assert best is not None
    first = max(score for _, score in source.trials[:4])
    assert best[1] > 0.93
    assert best[1] >= first
    late = [score for _, score in source.trials[-12:]]
    early = [score for _, score in source.trials[:12]]
    assert sum(late) > sum(early), "proposals must get better than the random start-up"


def test_ranges_come_from_the_annotations() -> None:
    source = Proposals(
        Search(base=BASE, free=(*KNOBS, "attack.strength", "rounds", "selection", "optimizer.lr"))
    )
    space = source.space
    assert isinstance(space[KNOBS[0]], optuna.distributions.FloatDistribution)
    strength = space["attack.strength"]
    assert isinstance(strength, optuna.distributions.FloatDistribution)
    assert strength.log
    assert isinstance(space["rounds"], optuna.distributions.IntDistribution)
    assert space["selection"] == optuna.distributions.CategoricalDistribution(("random", "fixed"))
    spec = source.spec({"attack.strength": 7.0, KNOBS[0]: 0.25}, seed=3)
    assert attack_strength(spec) == 7.0
    assert spec.defense[0].params == {"mask_threshold": 0.25}
    assert spec.seed == 3


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("defense.invariant.mask_treshold", "did you mean 'mask_threshold'"),
        ("defense.invariance.mask_threshold", "did you mean 'invariant'"),
        ("roundz", "did you mean 'rounds'"),
    ],
)
def test_unknown_free_parameters_are_refused(key: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        Proposals(Search(base=BASE, free=(key,)))


def test_unknown_objectives_are_refused() -> None:
    with pytest.raises(BadInput, match="did you mean 'der'"):
        Proposals(Search(base=BASE, free=KNOBS, objective="dre"))


@pytest.mark.parametrize(
    "broken",
    [
        None,
        {},
        {"final/clean_accuracy": 0.1},
        {"final/attack_success_rate": math.nan, "final/clean_accuracy": 0.1},
    ],
)
def test_a_run_without_a_finite_objective_is_told_as_the_worst(broken: Finals | None) -> None:
    source = Proposals(Search(base=BASE, free=KNOBS, trials=2, width=2))
    asked = source.ask()
    results: Mapping[str, Finals | None] = {
        spec.id: broken if spec.defense else bowl(spec) for spec in asked
    }
    source.tell(results)
    assert [score for _, score in source.trials] == [WORST, WORST]
    assert all(trial.state == optuna.trial.TrialState.COMPLETE for trial in source.study.trials)


def test_der_by_hand() -> None:
    fedavg = {"final/attack_success_rate": 0.9, "final/clean_accuracy": 0.8}
    assert der(fedavg, fedavg) == 0.5
    assert der(
        fedavg, {"final/attack_success_rate": 0.1, "final/clean_accuracy": 0.7}
    ) == pytest.approx((0.8 - 0.1 + 1) / 2)
    assert der(fedavg, {"final/attack_success_rate": 1.0, "final/clean_accuracy": 0.9}) == 0.5


def test_a_proposal_is_run_for_every_seed_beside_fedavg() -> None:
    asked = Proposals(Search(base=BASE, free=KNOBS, trials=3, width=2, seeds=(0, 4))).ask()
    assert [spec.seed for spec in asked if not spec.defense] == [0, 4]
    assert sorted(spec.seed for spec in asked if spec.defense) == [0, 0, 4, 4]
