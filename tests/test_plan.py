"""The plan: spaces by name and by path, twins, duplicates, overrides, and a queue that runs nothing
twice.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from backstop.platform.contract import Part, Search, Spec
from backstop.platform.params import BadInput
from backstop.platform.specs import spec as specs
from backstop.platform.specs.change import grid
from backstop.platform.specs.part import chain_text
from backstop.platform.specs.spec import spec_title, validate
from backstop.platform.sweeps.overrides import with_overrides
from backstop.platform.sweeps.plan import distinct, load_space, preflight, warm_first
from backstop.platform.sweeps.queues import Fixed, Queue
from backstop.platform.sweeps.twins import with_twins

BASE = Spec(rounds=2, attack=(Part("badnets"),), defense=(Part("median"),))


def test_twins_are_added_once() -> None:
    found = with_twins(grid(BASE, defense=["median", "krum"], seed=[0, 1]))
    texts = [
        (chain_text(spec.attack, "attack"), chain_text(spec.defense, "defense"), spec.seed)
        for spec in found
    ]
    assert texts[:4] == [
        ("badnets", "median", 0),
        ("badnets", "median", 1),
        ("badnets", "krum", 0),
        ("badnets", "krum", 1),
    ]
    assert sorted(texts[4:]) == sorted(
        [("badnets", "fedavg", seed) for seed in (0, 1)]
        + [("badnets", name, seed) for name in ("fedavg", "median", "krum") for seed in (0, 1)]
    )
    dormant = [chain_text(spec.defense, "defense") for spec in found if spec.dormant]
    assert sorted(dormant) == ["fedavg", "fedavg", "krum", "krum", "median", "median"]
    assert with_twins(found) == found


def unattacked(specs: list[Spec]) -> list[str]:
    """The defenses of the runs without an attack."""
    return [chain_text(spec.defense, "defense") for spec in specs if not spec.attack]


def test_a_dormant_run_stands_for_the_one_without_an_attack() -> None:
    assert unattacked(with_twins([BASE])) == []
    untargeted = BASE.replace(attack=(Part("gaussian"),))
    assert unattacked(with_twins([untargeted])) == ["median", "fedavg"]
    assert unattacked(with_twins([BASE, untargeted])) == []
    other = BASE.replace(seed=1, attack=(Part("gaussian"),))
    assert unattacked(with_twins([BASE, other])) == ["median", "fedavg"]
    asked = with_twins(grid(BASE, attack=["none", "badnets"]))
    assert unattacked(asked) == ["median", "fedavg"]  # where the space asks, both are run
    assert len([spec for spec in asked if spec.dormant]) == 2


def test_the_dormant_twin_is_of_the_trigger_alone_and_shared() -> None:
    found = with_twins(
        grid(
            BASE,
            attack=[
                "badnets+model_replacement(strength=2)",
                "badnets+model_replacement(strength=3)",
            ],
        )
    )
    assert [spec_title(spec) for spec in found if spec.dormant] == [
        "badnets, dormant × fedavg",
        "badnets, dormant × median",
    ]
    assert not [
        spec
        for spec in with_twins([BASE.replace(attack=(Part("model_replacement"),))])
        if spec.dormant
    ]


def test_a_plan_validates_each_of_its_specs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve, calls = specs._resolve, 0

    def counted(spec: Spec) -> Spec:
        nonlocal calls
        calls += 1
        return resolve(spec)

    monkeypatch.setattr(specs, "_resolve", counted)
    space = load_space("quickstart")
    assert isinstance(space, list)
    planned = warm_first(with_twins(distinct(space)))
    assert len({spec.id for spec in planned}) == len(planned) == calls == 84
    assert [validate(spec).id for spec in planned] == [spec.id for spec in planned]
    assert all(validate(spec) is validate(validate(spec)) for spec in planned)
    assert calls == 84
    assert planned[0].replace(rounds=7).id != planned[0].id  # another spec is validated anew
    assert calls == 85


def test_a_spec_that_stands_twice_is_refused() -> None:
    with pytest.raises(BadInput, match=r"one spec twice: badnets × median, seed 0"):
        distinct([BASE, BASE.replace(defense=(Part("median", {}),))])


def test_overrides_reach_every_spec_and_drop_the_doubles_they_make() -> None:
    found = with_overrides(grid(BASE, rounds=[2, 3], seed=[0, 1]), {"rounds": 5}, None, print)
    assert isinstance(found, list)
    assert [(spec.rounds, spec.seed) for spec in found] == [(5, 0), (5, 1)]
    reseeded = with_overrides([BASE], {}, [3, 4], print)
    assert isinstance(reseeded, list)
    assert [spec.seed for spec in reseeded] == [3, 4]
    (search,) = with_overrides((Search(base=BASE, free=()),), {"batch": 8}, [1], print)
    assert isinstance(search, Search)
    assert (search.base.batch, search.seeds) == (8, (1,))
    with pytest.raises(BadInput, match="did you mean 'rounds'"):
        with_overrides([BASE], {"round": 5}, None, print)


def test_a_change_reaches_the_specs_that_have_it_and_says_which_have_not() -> None:
    said: list[str] = []
    space = grid(
        BASE,
        attack=["none", "gaussian", "badnets+model_replacement(strength=5)"],
        model=["mlp", "logistic"],
    )
    found = with_overrides(space, {"attack.model_replacement.strength": 10}, None, said.append)
    assert isinstance(found, list)
    assert [spec.attack[-1].params for spec in found if spec.attack] == [
        {},
        {},
        {"strength": 10},
        {"strength": 10},
    ]
    assert said == [
        (
            "--set attack.model_replacement.strength changes 2 of 6 specs; without it: attack "
            "none, gaussian"
        )
    ]
    with_overrides(
        space, {"attack.strength": 1, "model.dropout": 0.1, "rounds": 5}, None, said.append
    )
    assert said[1:] == [
        "--set attack.strength changes 4 of 6 specs; without it: attack none",
        "--set model.dropout changes 3 of 6 specs; without it: model logistic",
    ]
    for key, message in (
        ("attack.badnet.size", "unknown key 'attack.badnet.size' for attack badnets"),
        ("defense.strength", "unknown key 'defense.strength' for defense median"),
        ("model.dropuot", "unknown parameter 'dropuot'; did you mean 'dropout'"),
        ("optimizer.rate", "optimizer sgd: unknown parameter 'rate'"),
    ):
        with pytest.raises(BadInput, match=message):
            with_overrides(space, {key: 1}, None, said.append)
    with pytest.raises(BadInput, match="unknown optimizer 'sdg'; did you mean 'sgd'"):
        with_overrides(space, {"optimizer": "sdg", "optimizer.lr": 1}, None, said.append)
    assert len(said) == 3


def test_seeds_are_said_once() -> None:
    with pytest.raises(BadInput, match="--set seed=3 and --seeds both say which seeds"):
        with_overrides([BASE], {"seed": 3}, [0, 1], print)
    space = (Search(base=BASE, free=(), seeds=(0, 1)),)
    (search,) = with_overrides(space, {"seed": 3}, None, print)
    assert isinstance(search, Search)
    assert search.seeds == (3,)


def test_what_a_search_proposes_is_not_set() -> None:
    with pytest.raises(BadInput, match=r"--set attack.badnets.size: the search proposes it"):
        with_overrides(
            (Search(base=BASE, free=("attack.badnets.size",)),),
            {"attack.badnets.size": 2},
            None,
            print,
        )
    chosen = Search(base=BASE, choices={"attack": ("badnets", "blended")})
    with pytest.raises(BadInput, match=r"--set attack.strength: the search proposes it"):
        with_overrides((chosen,), {"attack.strength": 2}, None, print)
    given = Search(base=BASE, free=(), attacks=("badnets",))
    with pytest.raises(BadInput, match=r"--set attack: the search has attacks of its own, badnets"):
        with_overrides((given,), {"attack": "blended"}, None, print)


def test_a_change_reaches_the_searches_that_have_it() -> None:
    searches = tuple(
        Search(base=BASE.replace(defense=(Part(name),)), free=(), title=name)
        for name in ("krum", "median")
    )
    said: list[str] = []
    changed = with_overrides(searches, {"defense.krum.f": 2, "rounds": 7}, [3, 4], said.append)
    assert [item.base.defense[0].params for item in changed if isinstance(item, Search)] == [
        {"f": 2},
        {},
    ]
    assert {(item.base.rounds, item.seeds) for item in changed if isinstance(item, Search)} == {
        (7, (3, 4))
    }
    assert said == ["--set defense.krum.f changes 1 of 2 specs; without it: defense median"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def mine():\n    return 1 / 0", r"raised ZeroDivisionError: division by zero"),
        (
            "def mine():\n    return []",
            r"must return a non-empty list of Specs, a Search or a list",
        ),
        ("raise SystemExit('no')", r"raised SystemExit: no"),
        ("x = 1", r"has no function mine\(\)"),
        ("def mine(:", r"raised SyntaxError"),
    ],
)
def test_a_space_that_cannot_be_used_says_why(tmp_path: Path, source: str, message: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(source)
    with pytest.raises(BadInput, match=message):
        load_space(str(file))


def test_spaces_by_name_and_by_path(tmp_path: Path) -> None:
    assert isinstance(load_space("smoke"), list)
    with pytest.raises(BadInput, match="did you mean 'smoke'"):
        load_space("smok")
    with pytest.raises(BadInput, match="no such Python file"):
        load_space(str(tmp_path / "absent.py"))
    file = tmp_path / "mine.py"
    file.write_text(
        "from backstop.platform.contract import Spec\n\ndef mine():\n    return [Spec(rounds=1)]\n"
    )
    assert load_space(str(file)) == [Spec(rounds=1)]


def test_the_queue_skips_what_is_done_and_ends() -> None:
    planned = grid(BASE, seed=[0, 1, 2])
    queue = Queue(Fixed(planned), {planned[1].id: {"final/clean_accuracy": 0.5}})
    assert queue.fill()
    assert [spec.seed for spec in queue.waiting] == [0, 2]
    assert queue.skipped == 1
    assert queue.unfinished()
    for spec in planned:
        queue.results[spec.id] = {}
    queue.waiting = []
    assert not queue.unfinished()
    assert not queue.fill()


def test_a_rehearsal_finds_what_cannot_run(tmp_path: Path) -> None:
    preflight([BASE, BASE.replace(seed=1)], tmp_path, "cpu")
    with pytest.raises(BadInput, match="leaves one of clients=100 without samples"):
        preflight([BASE, BASE.replace(alpha=0.001)], tmp_path, "cpu")
    with pytest.raises(BadInput, match="mnist"):
        preflight([BASE.replace(dataset=Part("mnist"))], tmp_path, "cpu")


def test_a_search_space_may_import_grid_from_where_it_used_to_stand(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "from backstop.platform.contract import Part, Spec\n"
        "from backstop.platform.specs import grid\n"
        "def mine():\n"
        "    return grid(Spec(model=Part('logistic')), seed=range(2))\n"
    )
    found = load_space(str(file))
    assert isinstance(found, list) and len(found) == 2
