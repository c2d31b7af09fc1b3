"""Laws of every search space: it can be planned, its specs are distinct and valid, and planning it
twice gives the same plan.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from itertools import product
from typing import NamedTuple

import pytest

from backstop.platform import plugins
from backstop.platform.contract import Part, Search, Spec
from backstop.platform.specs.spec import spec_text, validate
from backstop.platform.sweeps.domain import Domain
from backstop.platform.sweeps.overrides import Space
from backstop.platform.sweeps.plan import distinct, load_space, plan_space
from backstop.platform.sweeps.ranges import full_key
from backstop.platform.sweeps.twins import with_twins

SPACES = plugins.names("search_spaces")
SUITES = {
    "suite_laptop_1": "f2c98bcd2705bafb78b924219374fc3ca85ac848265453f85e752f80f99d84a6",
    "suite_gpu_1": "39ff9ec82129ed6686eedbd015492f43072bf7e5344f9eb04064bfe9c02df52a",
}


@cache
def loaded(name: str) -> Space:
    """The space as its file gives it."""
    return load_space(name)


@cache
def planned(name: str) -> list[Spec]:
    """All specs that are known before anything runs."""
    return plan(name, loaded(name))


def plan(name: str, space: Space) -> list[Spec]:
    """The specs of a space, and what they are compared with."""
    if isinstance(space, tuple):
        return distinct(plan_space(name, space).specs)
    return with_twins(distinct(space))


class Run(NamedTuple):
    """A spec by what runs are compared in."""

    setting: str  # all but the following
    attack: str
    defense: str
    dormant: bool
    seed: int


def chain_words(chain: Iterable[Part]) -> str:
    """A chain with all its parameters."""
    return "+".join(map(str, chain))


@cache
def runs(name: str) -> list[tuple[Run, Spec]]:
    """All specs that are known before anything runs, taken apart."""
    return [
        (
            Run(
                setting=spec_text(spec.replace(attack=(), defense=(), dormant=False, seed=0)),
                attack=chain_words(spec.attack),
                defense=chain_words(spec.defense),
                dormant=spec.dormant,
                seed=spec.seed,
            ),
            spec,
        )
        for spec in (item.resolved for item in planned(name))
    ]


@pytest.mark.parametrize("name", SPACES)
def test_specs_are_distinct_and_valid(name: str) -> None:
    specs = planned(name)
    assert specs
    assert len({spec.id for spec in specs}) == len(specs)


@pytest.mark.parametrize("name", [name for name in SPACES if name not in SUITES])
def test_the_plan_is_the_same_every_time(name: str) -> None:
    """That of a suite is compared with what it was when it was frozen."""
    again = plan(name, load_space(name))
    assert [spec.id for spec in again] == [spec.id for spec in planned(name)]


@pytest.mark.parametrize("name", SPACES)
def test_every_attacked_setting_has_its_undefended_run(name: str) -> None:
    if not isinstance(loaded(name), list):  # tests/test_search.py: what a search compares with
        return
    known = {run for run, _ in runs(name)}
    assert {run._replace(defense="") for run in known} <= known
    # a dormant run is the run without an attack, bit for bit
    quiet = {
        run._replace(attack="", dormant=False) for run in known if run.dormant or not run.attack
    }
    judged = {name for name in plugins.names("attacks") if plugins.attack_facts(name).trigger}
    for run, spec in runs(name):
        trigger = chain_words(stage for stage in spec.attack if stage.name in judged)
        for beside in (run, run._replace(defense="")):
            assert beside._replace(attack="", dormant=False) in quiet
            assert not trigger or beside._replace(attack=trigger, dormant=True) in known


@pytest.mark.parametrize("name", SPACES)
def test_it_says_what_it_is(name: str) -> None:
    plugin = plugins.find("search_spaces", name)
    assert len(plugin.summary) > 20
    assert plugin.factory.__doc__


def test_the_quickstart_sweeps_strength_threshold_and_trim_over_all_first_defenses() -> None:
    specs = planned("quickstart")
    used = {part.name for spec in specs for part in spec.defense}
    assert used == {
        "frozen",
        "trimmed_mean",
        "and_mask",
        "invariant",
        "median",
        "norm_clip",
        "krum",
        "multi_krum",
    }
    knobs = {
        (part.params["mask_threshold"], part.params["trim_fraction"])
        for spec in specs
        for part in spec.defense
        if part.name == "invariant"
    }
    assert len(knobs) == 4
    assert {spec.seed for spec in specs} == {0, 1}
    assert {len(spec.attack) for spec in specs if not spec.dormant} == {2}


def test_all_defenses_holds_all_defenses() -> None:
    specs = planned("all_defenses")
    assert {spec.defense[0].name for spec in specs if spec.defense} == set(
        plugins.names("defenses")
    ) - {"fedavg"}
    told = [part.params["f"] for spec in specs for part in spec.defense if "f" in part.params]
    assuming = [
        name for name in plugins.names("defenses") if "f" in plugins.defense_facts(name).needs
    ]
    assert {told.count(number) for number in (2, 4, 8)} == {4 * len(assuming)} and 0 not in told
    others = len(plugins.names("defenses")) - len(assuming)
    # FedAvg and frozen once more where the model has BatchNorm, and twice where clients measure
    assert len(specs) == 4 * (others + 3 * len(assuming) + 2 + 4)
    looking = {spec.defense[0].name for spec in specs if spec.defense and spec.model.name != "mlp"}
    facts = {name: plugins.defense_facts(name) for name in plugins.names("defenses")}
    assert looking == {"frozen"} | {
        name for name, known in facts.items() if "buffers" in known.needs or known.keeps == "norms"
    }


def test_all_attacks_holds_all_attacks() -> None:
    specs = planned("all_attacks")
    assert {stage.name for spec in specs for stage in spec.attack} == set(plugins.names("attacks"))
    assert {stage.name for spec in specs for stage in spec.defense} == {
        "frozen",
        "invariant",
        "median",
        "multi_krum",
        "norm_clip",
        "flame",
    }


PAPER = ("paper_cifar10", "paper_twitter", "paper_phishing")


@pytest.mark.parametrize("name", [f"{name}{size}" for name in PAPER for size in ("", "_small")])
def test_the_papers_tasks_have_the_published_federation_and_baselines(name: str) -> None:
    specs = planned(name)
    assert {
        (spec.clients, spec.per_round, spec.malicious, spec.alpha, spec.batch, spec.local_epochs)
        for spec in specs
    } == {(100, 20, 0.2, 0.5, 64, 1)}
    assert {spec.seed for spec in specs} == ({0, 1} if name == "paper_twitter_small" else {0, 1, 2})
    used = {part.name for spec in specs for part in spec.defense}
    flip = {"flip"} if "cifar10" in name else set()
    others = {
        "frozen",
        "krum",
        "multi_krum",
        "rfa",
        "median",
        "trimmed_mean",
        "norm_clip",
        "weak_dp",
        "sparsefed",
        "fltrust",
        "rlr",
        "and_mask",
        "invariant",
    }
    assert used == others | flip
    assert {"mask_threshold": 0.6, "trim_fraction": 0.45} in [
        dict(spec.defense[0].params) for spec in specs if spec.defense
    ]
    chains = [[stage.name for stage in spec.attack] for spec in specs]
    assert ["edge_case"] in chains and ["edge_case", "pgd", "model_replacement"] in chains
    assert (["badnets"] in chains and ["dba"] in chains) == bool(flip)
    learning = {str(spec.defense) for spec in specs if not spec.warmup}
    assert learning == {str(spec.defense) for spec in specs if spec.warmup}


@pytest.mark.parametrize(
    ("name", "share", "rounds"),
    [("paper_cifar10", 0.125, 300), ("paper_twitter", 1.0, 500), ("paper_phishing", 0.125, 50)],
)
def test_the_published_batch_mixes_and_rounds(name: str, share: float, rounds: int) -> None:
    """Eight edge cases in a batch of 64, or whole batches of them."""
    specs = planned(name)
    assert {
        part.params["share"] for spec in specs for part in spec.attack if part.name == "edge_case"
    } == {share}
    assert {spec.rounds for spec in specs if spec.warmup} == {rounds}


@pytest.mark.parametrize("size", ["", "_small"])
def test_the_knobs_hold_the_corners_of_the_ablation_on_each_task(size: str) -> None:
    specs = planned(f"paper_knobs{size}")
    for dataset in ("cifar10", "twitter", "phishing"):
        found = {
            (part.params["mask_threshold"], part.params["trim_fraction"])
            for spec in specs
            for part in spec.defense
            if spec.dataset.name == dataset and part.name == "invariant"
        }
        assert {(0.0, 0.0), (0.6, 0.0), (0.0, 0.45), (0.6, 0.45)} <= found
    task = {spec.id for name in PAPER for spec in planned(f"{name}{size}")}
    assert len([spec for spec in specs if spec.id in task]) >= 12, (
        "FedAvg, its twins and the published setting are runs of the tasks too"
    )


def test_a_space_that_ranks_defenses_holds_a_model_that_stands_still() -> None:
    for name in SPACES:
        if not isinstance(loaded(name), list):  # a search has a row for each of its own
            continue
        defended: dict[Run, set[str]] = {}
        for run, spec in runs(name):
            if spec.attack and not spec.dormant:
                ranked = defended.setdefault(run._replace(defense=""), set())
                ranked.add(spec.defense[0].name if spec.defense else "fedavg")
        for ranked in defended.values():
            assert "frozen" in ranked or ranked == {"fedavg"} or name == "smoke"


def searches(name: str) -> tuple[Search, ...]:
    space = loaded(name)
    assert isinstance(space, tuple)
    return space


def test_the_worst_case_is_searched_for_every_defense_with_an_equal_budget() -> None:
    found = searches("worst_case")
    assert [search.title for search in found] == plugins.names("defenses")
    assert {search.base.defense[0].name for search in found if search.base.defense} == set(
        plugins.names("defenses")
    ) - {"fedavg"}
    first, *others = found
    for search in others:
        assert replace(search, base=first.base, title=first.title) == first
    assert {search.side for search in found} == {"attack"}
    stages = "+".join(map(str, first.choices["attack+"]))
    assert all(name in stages for name in ("adaptive", "sign_aligned", "mask_budget"))


def test_every_attack_of_the_worst_case_can_be_run_and_its_strength_is_free() -> None:
    search = searches("worst_case")[0]
    domain = Domain(search)
    for trigger, stages, start in product(
        search.choices["attack"], search.choices["attack+"], search.choices["attack_start"]
    ):
        chosen = {"attack": trigger, "attack+": stages, "attack_start": start}
        spec = validate(domain.spec(chosen))
        assert full_key(spec, f"attack.{spec.attack[0].name}.share") in search.free
        assert len(spec.attack) == 1 or any(
            key.startswith(f"attack.{spec.attack[-1].name}.") for key in search.free
        )


def test_every_defense_is_tuned_with_an_equal_budget_and_ranked_on_other_attacks() -> None:
    found = searches("tune_defenses")
    assert [search.title for search in found] == plugins.names("defenses")
    assert {search.trials for search in found if search.free} == {12}
    assert {search.trials for search in found if not search.free} == {1}
    assert {search.side for search in found} == {"defense"}
    assert not {key for search in found for key in search.free if key.endswith(".f")}
    for search in found:
        assert not set(search.attacks) & set(search.confirm_attacks)
    tuned = {key for search in found for key in search.free}
    assert {
        "defense.invariant.mask_threshold",
        "defense.invariant.trim_fraction",
        "defense.norm_clip.norm",
    } <= tuned


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_is_a_frozen_list(name: str) -> None:
    """Sha256 of its ids in their order, twins included. Another list, a plug-in's new VERSION or a
    new ENGINE makes other runs: then the suite is another one, with a number of its own, once
    results of it are published.
    """
    ids = "\n".join(spec.id for spec in planned(name))
    assert hashlib.sha256(ids.encode()).hexdigest() == SUITES[name]


@pytest.mark.parametrize("name", SUITES)
def test_a_suite_has_seeds_enough_for_intervals_and_every_defense_of_its_day(name: str) -> None:
    specs = planned(name)
    settings: dict[Run, set[int]] = {}
    for run, _ in runs(name):
        settings.setdefault(run._replace(seed=0), set()).add(run.seed)
    assert all(len(seeds) >= 6 for seeds in settings.values())
    used = {stage.name for spec in specs for stage in spec.defense}
    assert used <= {*plugins.names("defenses")} and len(used) == 47
    known = {plugins.attack_facts(stage.name).knows for spec in specs for stage in spec.attack}
    assert {"own", "defense"} <= known


def test_shares_of_attackers_go_from_one_in_a_thousand_to_one_in_five() -> None:
    shares = {(spec.malicious, spec.selection) for spec in planned("attacker_share")}
    fixed = {share for share, selection in shares if selection == "fixed"}
    assert fixed == {0.05, 0.1, 0.2}
    assert {share for share, _ in shares} - fixed == {0.001, 0.01}
