"""Names of runs for people: they differ where a narrow column cuts them off."""

from __future__ import annotations

import pytest

from backstop.platform.contract import Spec
from backstop.platform.results.tracking.titles import FAMILY, run_title, varied_keys
from backstop.platform.specs.change import grid
from backstop.platform.sweeps.plan import plan_space
from tests.boards import BASE

KNOBS = [
    f"invariant(mask_threshold={threshold}, trim_fraction={trim})"
    for threshold in (0.2, 0.6)
    for trim in (0.1, 0.3)
]
CUT = 36  # characters of the column as the shared view makes it


def titles(specs: list[Spec]) -> list[str]:
    """The names of a sweep's runs, twins among them, without the digits of their ids."""
    planned = plan_space("space", specs).specs
    varied = varied_keys(planned)
    named = [run_title(spec, varied) for spec in planned]
    assert [name.rpartition(" · ")[2] for name in named] == [spec.id[:8] for spec in planned]
    return [name.rpartition(" · ")[0] for name in named]


def test_a_name_begins_with_the_defense_and_says_what_varies() -> None:
    attacks = [f"badnets+model_replacement(strength={strength})" for strength in (1, 3)]
    named = titles(grid(BASE, seed=range(2), attack=attacks, defense=["median", *KNOBS]))
    assert "invariant(0.6, 0.3) · strength 3.0 · seed 1" in named
    assert "median · dormant · seed 0" in named
    assert len(set(named)) == len(named)


def test_names_of_one_seed_differ_before_they_are_cut_off() -> None:
    attacks = [f"badnets+model_replacement(strength={strength})" for strength in (1, 3)]
    named = titles(grid(BASE, attack=attacks, defense=["median", "krum(f=4)", *KNOBS]))
    assert not any("seed" in name for name in named)
    assert len({name[:CUT] for name in named}) == len(named)


def test_several_attacks_are_named() -> None:
    named = titles(grid(BASE, attack=["badnets", "blended+pgd"], defense=["median"]))
    assert {"median · badnets", "median · blended+pgd"} <= set(named)
    assert "median · badnets · dormant" in named


def test_what_varies_besides_the_chains_has_its_key() -> None:
    specs = [BASE.replace(rounds=rounds) for rounds in (20, 30)]
    named = titles(grid(specs[0]) + grid(specs[1]))
    assert named == ["fedavg · no attack · rounds 20", "fedavg · no attack · rounds 30"]


@pytest.mark.parametrize("seed", [0, 7])
def test_a_run_of_no_sweep_has_its_attack_and_seed(seed: int) -> None:
    (spec,) = grid(BASE.replace(seed=seed), attack=["badnets"], defense=["norm_clip(norm=1)"])
    assert run_title(spec) == f"norm_clip · badnets · seed {seed} · {spec.id[:8]}"


def test_a_stage_that_stands_twice_varies_by_itself() -> None:
    chains = [f"norm_clip(norm=1)+median+norm_clip(norm={norm})" for norm in (2, 3)]
    specs = grid(BASE, defense=chains)
    assert varied_keys(specs) == {"defense.name", "defense.norm_clip.2.norm"}
    assert titles(specs)[1] == "norm_clip+median+norm_clip(3.0) · no attack"


def test_a_clean_twin_makes_no_second_attack() -> None:
    specs = plan_space("space", grid(BASE, attack=["badnets+model_replacement"])).specs
    assert any(spec.dormant for spec in specs)
    assert FAMILY not in varied_keys(specs)
