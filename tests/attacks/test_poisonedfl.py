"""PoisonedFL: its row, when its factor falls, that all rounds go one way, and its effect."""

from __future__ import annotations

from dataclasses import replace
from math import comb
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from backstop.attacks.poisonedfl import _agrees, _pushed, _State, poisonedfl
from backstop.platform.experiment import Experiment
from backstop.platform.seeds import generator
from backstop.platform.specs.part import to_chain
from tests.arena import ARENA, Claim, figures
from tests.views import attack_view

CLAIM = Claim(
    "poisonedfl", effect=0.6, weaker="poisonedfl(strength=0.5)", bend=0.6, untargeted=True
)
Row = npt.NDArray[np.float64]
SIGNS = torch.tensor([1.0, -1.0] * 20)


def reference(signs: Row, step: Row, sent: Row, strength: float) -> Row:
    """The formula of the data sheet, coordinate by coordinate."""
    length = sum(value**2 for value in step) ** 0.5
    other = sum(value**2 for value in sent) ** 0.5
    share = length / other if other else 0
    size = [abs(moved - was * share) for moved, was in zip(step, sent, strict=True)]
    whole = sum(value**2 for value in size) ** 0.5
    return np.array(
        [
            strength * length * sign * value / whole if whole else 0.0
            for sign, value in zip(signs, size, strict=True)
        ]
    )


@pytest.mark.parametrize("strength", [0.5, 8.0])
@pytest.mark.parametrize("case", ["random", "tied", "zero step", "zero sent", "parallel", "single"])
def test_the_row_is_that_of_the_formula(case: str, strength: float) -> None:
    draws = generator(0, "tests", "poisonedfl", case)
    d = 1 if case == "single" else 40
    signs = SIGNS[:d]
    step, sent = torch.randn(2, d, generator=draws)
    if case == "tied":
        step, sent = step.sign(), sent.sign()
    if case == "zero step":
        step = torch.zeros(d)
    if case == "zero sent":
        sent = torch.zeros(d)
    if case == "parallel":
        sent = 2 * step  # the whole step is their own
    expected = reference(
        signs.double().numpy(), step.double().numpy(), sent.double().numpy(), strength
    )
    found = _pushed(signs, step, sent, strength)
    if case == "parallel":  # what is left is rounding
        assert found.norm() <= strength * step.norm() * 1.001
    else:
        torch.testing.assert_close(found, torch.from_numpy(expected).float())
    moved = found != 0
    assert torch.equal(found.sign()[moved], signs[moved])


def exact_quantile(d: int) -> int:
    """The smallest k with P(Binomial(d, 1/2) <= k) >= 99 %."""
    total, count = 0, -1
    while total < 0.99 * 2**d:
        count += 1
        total += comb(d, count)
    return count


@pytest.mark.parametrize("d", [40, 200, 1000])
def test_agreement_is_more_than_chance_has_it_in_99_of_100_cases(d: int) -> None:
    signs = torch.ones(d)

    def agreeing(count: int) -> bool:
        moved = -signs
        moved[:count] = 1
        return _agrees(signs, moved)

    quantile = exact_quantile(d)
    assert agreeing(quantile + 1) and not agreeing(quantile - 2)


@pytest.mark.parametrize(("d", "quantile"), [(1204682, 603618), (139960, 70415), (145212, 73049)])
def test_the_quantiles_of_the_authors_networks(d: int, quantile: int) -> None:
    signs = torch.ones(d)
    moved = -signs
    moved[: quantile - 1] = 1
    assert not _agrees(signs, moved)
    moved[: quantile + 1] = 1
    assert _agrees(signs, moved)


@pytest.mark.parametrize(("way", "factor"), [(1.0, 8.0), (-1.0, 5.6), (0.0, 5.6)])
def test_the_factor_falls_where_the_model_does_not_follow(way: float, factor: float) -> None:
    view, attack = attack_view("table"), poisonedfl(every=5)
    assert attack.init is not None and attack.plan is not None and attack.remember is not None
    state: _State = attack.remember(attack.init(view), torch.zeros(3, 24), view)
    signs = state.signs
    early = replace(view, round=4, params=view.params + way * signs)
    assert attack.plan(state, early).strength == 8.0
    late = replace(early, round=5)
    after = attack.plan(state, late)
    assert after.strength == pytest.approx(factor) and after.since == 5
    assert torch.equal(after.start, late.params)
    assert attack.plan(state._replace(strength=0.6), late).strength == 0.6  # 0.42 is too low


def test_the_first_round_has_nothing_to_go_by() -> None:
    view, attack = attack_view("table"), poisonedfl()
    assert attack.init is not None and attack.craft is not None
    assert not attack.craft(attack.init(view), torch.ones(3, 24), view).any()


def sent_in(rounds: int) -> list[Tensor]:
    """What the arena's malicious clients send, round by round."""
    spec = ARENA.replace(attack=to_chain("poisonedfl(strength=2)", "attack"))
    experiment = Experiment(spec, Path("unused"), "cpu")
    sent = []
    for _ in range(rounds):
        before = experiment.state.params
        experiment.round()
        state = experiment.state.attack[0]
        assert torch.equal(state.before, before)
        sent.append(state.sent)
    return sent


def test_all_rounds_go_one_way() -> None:
    first, *later = sent_in(4)
    assert not first.any() and all(row.any() for row in later)
    for one in later[1:]:
        both = (one != 0) & (later[0] != 0)
        assert torch.equal(one.sign()[both], later[0].sign()[both]) and both.float().mean() > 0.9


@pytest.mark.parametrize(
    ("defense", "lost"), [("median", 0.15), ("trimmed_mean(trim_fraction=0.2)", 0.3)]
)
def test_it_breaks_rules_by_coordinate_where_clients_differ(defense: str, lost: float) -> None:
    """Two classes each, four of ten fake, sixty rounds."""
    unequal = (("alpha", "shards"), ("malicious", 0.4), ("rounds", 60), ("eval_every", 60))
    calm, harmed = (
        figures(attack, unequal, defense=defense)["final/clean_accuracy"]
        for attack in ("none", "poisonedfl")
    )
    assert calm > 0.8 and harmed < calm - lost


def test_multi_krum_leaves_its_rows_out() -> None:
    found = figures("poisonedfl", defense="multi_krum(f=4)")
    assert found["final/clean_accuracy"] > 0.9
