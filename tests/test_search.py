"""Searches: ranges from annotations, a sequence that no worker count can change, nothing that is
not a number, and a winner that is confirmed on seeds which no proposal has seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import optuna
import pytest

from backstop.platform.commands.searches import print_searches
from backstop.platform.contract import Part, Scalar, Search, Spec
from backstop.platform.params import BadInput
from backstop.platform.specs import spec as specs
from backstop.platform.specs.change import attack_strength
from backstop.platform.specs.part import complete_part, to_chain
from backstop.platform.sweeps.objectives import Compared, der
from backstop.platform.sweeps.queues import Finals, Queue, Together
from backstop.platform.sweeps.search import Proposals

BASE = Spec(attack=to_chain("badnets+model_replacement", "attack"), defense=(Part("invariant"),))
KNOBS = ("defense.invariant.mask_threshold", "defense.invariant.trim_fraction")
SEARCH = Search(base=BASE, free=KNOBS, trials=12, width=4, confirm=())
TRIGGERS = ("badnets", "blended")
STAGES = ("none", "model_replacement", "pgd+model_replacement")
ATTACKER = Search(
    base=BASE.replace(attack=()),
    choices={"attack": TRIGGERS, "attack+": STAGES, "attack_every": (1, 2)},
    free=("attack.badnets.share", "attack.model_replacement.strength", "attack.pgd.radius"),
    objective="excess_success",
    constraints=("accuracy_lost <= 0.02",),
    trials=24,
    width=4,
    confirm=(),
)


def bowl(spec: Spec) -> Finals:
    """Pretended results: best at threshold 0.5 and trim 0.3."""
    if not spec.defense:
        return {"final/attack_success_rate": 1.0, "final/clean_accuracy": 0.9}
    knobs = complete_part(spec.defense[0], "defenses").params
    miss = abs(float(str(knobs["mask_threshold"])) - 0.5) + abs(
        float(str(knobs["trim_fraction"])) - 0.3
    )
    return {"final/attack_success_rate": min(1.0, miss), "final/clean_accuracy": 0.9}


def attacked(spec: Spec) -> Finals:
    """Pretended results: strong attacks succeed, and cost accuracy from strength 10 on."""
    if spec.dormant or not spec.attack:
        return {"final/attack_success_rate": 0.1, "final/clean_accuracy": 0.9}
    strength = min(attack_strength(spec) or 0.0, 100.0)
    return {
        "final/attack_success_rate": 0.1 + 0.8 * strength / 100 / spec.attack_every,
        "final/clean_accuracy": 0.9 - max(0.0, strength - 10) / 200,
    }


def drive(
    search: Search,
    order: int = 1,
    done: dict[str, Finals] | None = None,
    seen: list[tuple[int, int]] | None = None,
    figures: Callable[[Spec], Finals] = bowl,
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
        done |= {spec.id: figures(spec) for spec in queue.waiting}
        for spec in queue.waiting[::order]:
            queue.results[spec.id] = figures(spec)
        queue.waiting = []
    return source


def one_by_one(
    searches: Sequence[Search],
    *,
    last_first: bool,
    figures: Callable[[Spec], Finals],
    at_once: int = 1,
) -> list[Proposals]:
    """Searches side by side, so many runs at a time; the one that began last or first ends first,
    and the next is taken up before the others have ended.
    """
    sources = [Proposals(search) for search in searches]
    queue = Queue(Together(sources), {})
    running: list[Spec] = []
    while True:
        while len(running) < at_once and queue.fill():
            running.append(queue.waiting.pop(0))
        if not running:
            assert not queue.unfinished()
            return sources
        spec = running.pop(-1 if last_first else 0)
        queue.results[spec.id] = figures(spec)


def test_the_order_in_which_trials_end_does_not_change_the_search() -> None:
    one, other = drive(SEARCH), drive(SEARCH, order=-1)
    assert len(one.trials) == 12
    assert one.trials == other.trials
    assert drive(replace(SEARCH, seed=1)).trials != one.trials


@pytest.mark.parametrize(("short", "long"), [(4, 8), (6, 11), (24, 40)])
def test_a_longer_search_begins_with_the_shorter_one(short: int, long: int) -> None:
    """Of the same store: what is finished is kept, and only what is new is run."""
    first, second = (replace(SEARCH, trials=trials, seeds=(0, 3)) for trials in (short, long))
    done: dict[str, Finals] = {}
    kept = drive(first, done=done).trials
    assert len(done) == 2 * (short + 1)
    seen: list[tuple[int, int]] = []
    assert drive(second, done=done, seen=seen).trials[:short] == kept
    assert len(done) == 2 * (long + 1)
    assert {(skipped, expected) for skipped, expected in seen} == {
        (2 * (short + 1), 2 * (long + 1))
    }


@pytest.mark.parametrize("sampler", ["tpe", "tpe_univariate", "nsga2", "nsga3", "random"])
def test_every_sampler_gives_the_same_trials_for_any_order_and_length(sampler: str) -> None:
    search = replace(ATTACKER, sampler=sampler, trials=24)  # type: ignore[arg-type]
    one, other = (drive(search, order, figures=attacked).trials for order in (1, -1))
    assert one == other and len(one) == 24
    assert drive(replace(search, trials=10), figures=attacked).trials == one[:10]
    keys = [set(trial.values) for trial in one]
    assert {"attack.pgd.radius" in key for key in keys} == {True, False}


@pytest.mark.parametrize(
    ("base", "free", "in_all"),
    [
        (BASE, KNOBS, 13),  # one undefended run for all
        (BASE, (*KNOBS, "attack.strength"), 24),  # an undefended run for each
        # the proposal is its own undefended run
        (BASE.replace(defense=()), ("attack.strength",), 12),
    ],
)
def test_the_runs_of_a_search_are_counted_while_they_come(
    base: Spec, free: tuple[str, ...], in_all: int
) -> None:
    source = Proposals(replace(SEARCH, base=base, free=free))
    ran: set[str] = set()
    while generation := source.ask():
        assert source.expected() == in_all
        ran |= {spec.id for spec in generation}
        source.tell({spec.id: bowl(spec.replace(defense=())) for spec in generation})
    assert source.expected() == len(ran) == in_all


def test_a_search_validates_each_of_its_specs_once_or_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolve, calls = specs._resolve, 0

    def counted(spec: Spec) -> Spec:
        nonlocal calls
        calls += 1
        return resolve(spec)

    source = Proposals(replace(SEARCH, trials=6, width=6, seeds=(0, 1)))
    monkeypatch.setattr(specs, "_resolve", counted)
    asked = source.ask()
    assert len(asked) == 6 * 2 + 2
    # each proposal as it is; for each seed a defended and an undefended run, asked and counted
    assert calls <= 6 + 2 * 6 * 2 * 2


def test_a_search_begins_with_what_it_is_given() -> None:
    known: dict[str, Scalar] = {
        "attack": "blended",
        "attack+": "pgd+model_replacement",
        "attack.pgd.radius": 2.0,
    }
    search = replace(ATTACKER, first=({"attack": "badnets", "attack.badnets.share": 0.5}, known))
    one, other, *_ = drive(search, figures=attacked).trials
    assert (one.values["attack"], one.values["attack.badnets.share"]) == ("badnets", 0.5)
    assert known.items() <= other.values.items()
    assert "attack.model_replacement.strength" in other.values


def test_it_searches() -> None:
    source = drive(replace(SEARCH, trials=40))
    best = source.best()
    assert best is not None
    scores = [trial.scores["der"] for trial in source.trials]
    assert best.scores["der"] == max(scores) > 0.93
    assert sum(scores[-12:]) > sum(scores[:12]), "proposals must get better than the start-up"


def test_ranges_come_from_the_annotations_unless_the_search_narrows_them() -> None:
    free = (*KNOBS, "attack.strength", "rounds", "selection", "optimizer.lr", "malicious")
    ranges = {"rounds": (5, 10), "malicious": (0.1, 0.3)}
    domain = Proposals(replace(SEARCH, free=free, ranges=ranges)).domain
    spans = domain.spans
    assert isinstance(spans[KNOBS[0]], optuna.distributions.FloatDistribution)
    strength = spans["attack.model_replacement.strength"]
    assert isinstance(strength, optuna.distributions.FloatDistribution)
    assert strength.log
    assert spans["rounds"] == optuna.distributions.IntDistribution(5, 10)
    assert spans["malicious"] == optuna.distributions.FloatDistribution(0.1, 0.3)
    assert spans["selection"] == optuna.distributions.CategoricalDistribution(("random", "fixed"))
    spec = domain.spec({"attack.strength": 7.0, KNOBS[0]: 0.25})
    assert attack_strength(spec) == 7.0
    assert spec.defense[0].params == {"mask_threshold": 0.25}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"free": ("defense.invariant.mask_treshold",)}, "did you mean 'mask_threshold'"),
        ({"free": ("defense.invariance.mask_threshold",)}, "did you mean 'invariant'"),
        ({"free": ("roundz",)}, "did you mean 'rounds'"),
        ({"free": ("rounds",)}, r"say where to search: ranges=\{'rounds': \(low, high\)\}"),
        ({"ranges": {"rounds": (1, 2)}}, "range of 'rounds', which is not free"),
        ({"ranges": {KNOBS[0]: (0.5, 2)}}, r"range \(0.5, 2\).*two numbers in \[0, 1\]"),
        ({"free": ("seed",)}, "seed is not free"),
        ({"first": ({KNOBS[0]: 2.0},)}, "mask_threshold=2.0 is out of its search range"),
        ({"first": ({"rounds": 2},)}, "rounds is not free"),
        (
            {"choices": {"attack": TRIGGERS}, "first": ({"attack": "dba"},)},
            "attack=dba is not among the choices",
        ),
        ({"choices": {"attack": ("badnets", "badnats")}}, "did you mean 'badnets'"),
        ({"choices": {"attack": ()}}, "choices of 'attack' are empty"),
        ({"choices": {KNOBS[0]: (0.5,)}}, "is free and has choices"),
        ({"choices": {"model+": ("mlp",)}}, r"allowed: attack\+, defense\+"),
        ({"objective": "dre"}, "did you mean 'der'"),
        ({"objective": ("der", "der")}, "names one twice"),
        ({"objective": "upwards der"}, "is not NAME, minimize NAME or maximize NAME"),
        ({"objective": "server_seconds"}, "seconds differ from run to run"),
        ({"constraints": ("accuracy_lost < 0.02",)}, "is not of the form"),
        ({"constraints": ("accuracy_last <= 0.02",)}, "did you mean 'accuracy_lost'"),
        ({"constraints": ("server_seconds <= 1",)}, "they decide nothing"),
        ({"sampler": "tep"}, "did you mean 'tpe'"),
        ({"trials": 0}, "trials=0 is not allowed"),
        ({"seeds": ()}, "seeds are empty"),
        ({"seeds": (0, 1), "confirm": (1, 2)}, "seed 1 is among the seeds of the search and"),
        ({"choices": {"attack": ("none",)}, "attacks": ("badnets",)}, "keep one of them"),
        ({"rungs": (0.5, 0.25)}, "in ascending order"),
        ({"rungs": (0.5,), "objective": ("der", "clean_accuracy")}, "rungs need one objective"),
    ],
)
def test_a_search_that_cannot_be_run_is_refused(
    changes: Mapping[str, object], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        Proposals(replace(SEARCH, **changes))  # type: ignore[arg-type]


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
    search = replace(SEARCH, trials=2, width=2, objective=("der", "accuracy_lost"))
    source = Proposals(search)
    results: Mapping[str, Finals | None] = {
        spec.id: bowl(spec) if not spec.defense or spec.dormant else broken for spec in source.ask()
    }
    source.tell(results)
    assert [trial.values for trial in source.study.trials] == [[0.0, 1.0]] * 2
    assert all(trial.state == optuna.trial.TrialState.COMPLETE for trial in source.study.trials)
    assert [trial.state for trial in source.trials] == ["failed"] * 2
    assert source.best() is None
    assert source.ask() == []  # nothing to confirm


def test_der_by_hand() -> None:
    fedavg = {"final/attack_success_rate": 0.9, "final/clean_accuracy": 0.8}
    assert der(Compared(fedavg, fedavg)) == 0.5
    better = {"final/attack_success_rate": 0.1, "final/clean_accuracy": 0.7}
    assert der(Compared(better, fedavg)) == pytest.approx((0.8 - 0.1 + 1) / 2)
    harmful = {"final/attack_success_rate": 1.0, "final/clean_accuracy": 0.9}
    assert der(Compared(harmful, fedavg)) == 0.5


def test_a_proposal_is_run_for_every_seed_and_attack_beside_fedavg() -> None:
    search = replace(SEARCH, trials=3, width=2, seeds=(0, 4), attacks=("badnets", "blended"))
    asked = Proposals(search).ask()
    assert [spec.seed for spec in asked if not spec.defense] == [0, 0, 4, 4]
    assert [str(spec.attack[0]) for spec in asked if not spec.defense] == [*TRIGGERS] * 2
    assert sorted(spec.seed for spec in asked if spec.defense) == [0] * 4 + [4] * 4
    assert {spec.evaluate_on for spec in asked} == {"validation"}


def test_parameters_depend_on_choices() -> None:
    source = drive(ATTACKER, figures=attacked)
    for trial in source.trials:
        chain = f"{trial.values['attack']}+{trial.values['attack+']}"
        assert ("attack.badnets.share" in trial.values) == ("badnets" in chain)
        strength = "attack.model_replacement.strength"
        assert (strength in trial.values) == ("model_replacement" in chain)
        spec = source.domain.spec(trial.values)
        assert "+".join(stage.name for stage in spec.attack) == chain.removesuffix("+none")
        assert spec.attack_every == trial.values["attack_every"]
    assert len({tuple(sorted(trial.values)) for trial in source.trials}) >= 4


def test_one_dormant_twin_serves_all_shares_of_poison_and_schedules() -> None:
    """Dormant clients poison nothing: tests/test_search_twins.py shows it on runs."""
    asked = Proposals(replace(ATTACKER, trials=8, width=8)).ask()
    dormant = [spec for spec in asked if spec.dormant]
    assert [str(spec.attack[0]) for spec in dormant] == [*TRIGGERS]
    assert all(spec.defense for spec in dormant)


def test_a_winner_keeps_to_the_constraint() -> None:
    source = drive(ATTACKER, figures=attacked)
    best = source.best()
    assert best is not None
    assert best.kept and best.scores["accuracy_lost"] <= 0.02
    stronger = [trial for trial in source.trials if not trial.kept]
    assert max(trial.scores["excess_success"] for trial in stronger) > best.scores["excess_success"]
    free = drive(replace(ATTACKER, constraints=()), figures=attacked).best()
    assert free is not None
    assert free.scores["excess_success"] > best.scores["excess_success"]
    floor = replace(ATTACKER, objective="attack_success", constraints=("clean_accuracy >= 0.95",))
    assert drive(floor, figures=attacked).best() is None


def test_a_proposal_that_cannot_be_run_is_refused_and_the_search_goes_on() -> None:
    clashing = replace(
        ATTACKER,
        choices={"attack": ("model_replacement", "badnets"), "attack+": ("none", "blended")},
        free=(),
    )
    source = drive(clashing, figures=attacked)
    states = {
        (trial.values["attack"], trial.values["attack+"]): trial.state for trial in source.trials
    }
    assert states["badnets", "blended"] == "refused"
    assert states["badnets", "none"] == "finished"
    assert len(source.trials) == 24


def test_several_objectives_have_a_front() -> None:
    search = replace(
        ATTACKER,
        objective=("attack_success", "accuracy_lost"),
        constraints=(),
        sampler="nsga2",
    )
    source = drive(search, figures=attacked)
    front = source.front()
    assert source.winners() == front and len(front) > 1
    for trial in front:
        for other in source.trials:
            assert not (
                other.scores["attack_success"] > trial.scores["attack_success"]
                and other.scores["accuracy_lost"] < trial.scores["accuracy_lost"]
            )
    turned = drive(replace(search, objective=("minimize attack_success",)), figures=attacked).best()
    assert turned is not None
    assert turned.scores["attack_success"] == min(
        trial.scores["attack_success"] for trial in source.trials
    )


def test_seconds_are_on_the_front_and_steer_nothing() -> None:
    clock = {"slow": 0.0}

    def timed(spec: Spec) -> Finals:
        clock["slow"] += 1.0
        return {**bowl(spec), "time/total_aggregate_s": clock["slow"]}

    search = replace(SEARCH, objective=("clean_accuracy", "attack_failure", "server_seconds"))
    one, other = drive(search, figures=timed), drive(search, order=-1, figures=timed)
    assert [trial.values for trial in one.trials] == [trial.values for trial in other.trials]
    assert [trial.scores for trial in one.trials] != [trial.scores for trial in other.trials]
    assert [trial.position for trial in one.winners()] == [
        trial.position for trial in other.winners()
    ]
    assert one.trials[0] in one.front()  # the quickest
    assert len(one.front()) > len(one.winners())


def test_the_winner_is_confirmed_on_fresh_seeds_and_the_test_set() -> None:
    search = replace(SEARCH, confirm=(7, 8), trials=8)
    done: dict[str, Finals] = {}
    source = drive(search, done=done)
    best = source.best()
    (confirmed,) = source.confirmed
    assert best is not None and confirmed.trial == best
    assert [spec.seed for spec in confirmed.specs] == [7, 8]
    assert {spec.evaluate_on for spec in confirmed.specs} == {"test"}
    for spec in confirmed.specs:
        knobs = {f"defense.invariant.{key}": value for key, value in spec.defense[0].params.items()}
        assert knobs == best.values
        # what the leaderboard compares it with
        assert spec.replace(defense=()).id in done
        trigger = spec.attack[:1]
        assert spec.replace(attack=trigger, dormant=True).id in done
    assert confirmed.scores["der"] == [best.scores["der"]] * 2
    assert source.expected() == len(done) == 8 + 1 + 2 * 4


def test_a_failed_run_does_not_confirm() -> None:
    search = replace(SEARCH, confirm=(7, 8), trials=4)

    def failing(spec: Spec) -> Finals:
        return {} if spec.seed == 8 else bowl(spec)

    (confirmed,) = drive(search, figures=failing).confirmed
    assert len(confirmed.scores["der"]) == 1


@pytest.mark.parametrize("at_once", [1, 2, 8])
def test_searches_side_by_side_are_what_they_are_alone(at_once: int) -> None:
    """Whichever run ends first, and though one search has three times as many generations."""
    searches = [
        replace(SEARCH, title="threshold", free=KNOBS[:1], trials=12, width=2, confirm=(7,)),
        replace(SEARCH, title="both", trials=8, width=4),
        replace(SEARCH, title="trim", free=KNOBS[1:], trials=4),
    ]
    alone = [drive(search).trials for search in searches]
    for last_first in (True, False):
        sources = one_by_one(searches, last_first=last_first, figures=bowl, at_once=at_once)
        assert [source.trials for source in sources] == alone
        assert [len(source.confirmed) for source in sources] == [1, 0, 0]


def test_a_search_goes_on_while_another_waits() -> None:
    sources = [
        Proposals(replace(SEARCH, title=title, seeds=(seed,)))
        for title, seed in (("slow", 0), ("quick", 1))
    ]
    queue = Queue(Together(sources), {})
    for _ in range(12):
        queue.fill()
        queue.results |= {spec.id: bowl(spec) for spec in queue.waiting if spec.seed == 1}
        queue.waiting = []
    assert not queue.fill() and queue.unfinished()
    assert [len(source.trials) for source in sources] == [0, 12]
    assert queue.expected == 2 * 13


def test_the_worse_half_is_given_up_at_each_rung() -> None:
    lengths: list[int] = []

    def slowly(spec: Spec) -> Finals:
        if spec.defense:
            lengths.append(spec.rounds)
        return bowl(spec)

    search = replace(SEARCH, base=BASE.replace(rounds=40), rungs=(0.25, 0.5), trials=8)
    source = drive(search, figures=slowly)
    # each run is asked for twice by this test's driver
    assert [lengths.count(rounds) // 2 for rounds in (10, 20, 40)] == [8, 4, 2]
    states = [trial.state for trial in source.trials]
    assert states.count("pruned") == 6 and states.count("finished") == 2
    for start in (0, 4):
        generation = source.trials[start : start + 4]
        finished = [trial for trial in generation if trial.state == "finished"]
        best = max(generation, key=lambda trial: trial.scores["der"])
        assert finished == [best]
    assert source.best() in [trial for trial in source.trials if trial.state == "finished"]
    told = [trial.state.name for trial in source.study.trials]
    assert told.count("PRUNED") == 6
    assert drive(search, order=-1).trials == source.trials


def test_a_winner_that_breaks_its_constraint_on_fresh_seeds_is_named(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def otherwise(spec: Spec) -> Finals:
        figures = attacked(spec)
        if spec.evaluate_on == "validation" or spec.dormant:
            return figures
        return {**figures, "final/clean_accuracy": 0.85}

    search = replace(ATTACKER, trials=8, confirm=(7, 8), title="median")
    print_searches([drive(search, figures=otherwise)])
    shown = capsys.readouterr().out
    assert "median: on fresh seeds the winner breaks accuracy_lost <= 0.02" in shown
    assert "accuracy_lost is 0.050" in shown
    print_searches([drive(search, figures=attacked)])
    shown = capsys.readouterr().out
    assert "breaks accuracy_lost" not in shown
    # six keys and more stand in one column
    assert "proposal" in shown and "attack_every" in shown
