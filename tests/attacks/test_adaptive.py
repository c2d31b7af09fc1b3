"""Adaptive: the factor that it finds against rules whose answer is known, and that it beats fixed
factors.
"""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from backstop.attacks.adaptive import adaptive
from backstop.platform import plugins
from backstop.platform.contract import AttackView, Defense, RunDefense, Updates
from backstop.platform.experiment import Experiment
from backstop.platform.rounds.views import State
from backstop.platform.seeds import generator
from backstop.platform.specs.part import to_chain
from tests.arena import ARENA, Claim, effect
from tests.views import attack_view, server_view

CLAIM = Claim(
    "badnets(share=0.2)+adaptive",
    effect=0.4,
    weaker="badnets(share=0.2)+adaptive(high=1)",
    bend=0.2,
    defense="norm_clip(norm=0.2)",
)
D = 24
DRAWS = generator(0, "tests", "adaptive")
HONEST = 0.1 * torch.randn(16, D, generator=DRAWS)
ROWS = torch.nn.functional.normalize(torch.ones(4, D) + 0.05 * torch.randn(4, D, generator=DRAWS))


def copy_of(name: str, **params: Any) -> RunDefense:
    """A defense as the platform gives it to an adversary that knows it."""
    defense: Defense = plugins.build("defenses", name, params)

    def defend(
        given: Updates,
        memory: Any = None,
        at: tuple[int, Tensor] | None = None,
        buffers: Tensor | None = None,
    ) -> tuple[Updates, Any]:
        assert buffers is None
        view = server_view(D)
        if at is not None:
            view = replace(view, round=at[0], params=at[1])
        return defense.apply(given, defense.init(view) if memory is None else memory, view)

    return defend


def on(defend: RunDefense, rows: Tensor) -> Updates:
    """What it leaves of rows of clients 0 … n - 1 in a first round."""
    return defend(Updates(rows, torch.ones(len(rows)), torch.arange(len(rows))))[0]


def sent(defend: RunDefense, *, server_lr: float = 1.0, **params: Any) -> Tensor:
    """What is sent, without a margin, when honest updates are HONEST and those of the malicious
    clients would be zero.
    """
    attack = adaptive(**({"margin": 1.0} | params))
    assert attack.craft is not None and attack.plan is not None
    trained = iter(HONEST)
    view = replace(
        attack_view("table", malicious=4),
        total=20,
        defend=defend,
        server_lr=server_lr,
        train=lambda vector, data: next(trained),
        unpoisoned=lambda: torch.zeros(4, D),
    )
    return attack.craft(attack.plan(None, view), ROWS, view)


def factor(found: Tensor) -> float:
    """How many times the malicious mean was sent."""
    return float(found.mean(0).norm() / ROWS.mean(0).norm())


@pytest.mark.parametrize(("server_lr", "wanted"), [(1.0, 5.0), (0.5, 10.0), (2.0, 2.5)])
def test_without_a_defense_it_is_model_replacement(server_lr: float, wanted: float) -> None:
    """Four of twenty rows: a factor n / (m η) replaces the model."""
    assert factor(sent(copy_of("fedavg"), server_lr=server_lr, steps=30)) == pytest.approx(
        wanted, rel=1e-3
    )


def test_the_margin_is_a_share_of_the_best_factor() -> None:
    whole, part = (sent(copy_of("multi_krum", f=4), margin=margin) for margin in (1.0, 0.6))
    torch.testing.assert_close(part, 0.6 * whole)


def test_a_rule_that_rejects_is_kept_just_content() -> None:
    defend = copy_of("multi_krum", f=4)

    def taken(rows: Tensor) -> float:
        return on(defend, torch.cat([HONEST, rows])).weight[-4:].sum().item()

    found = sent(defend, steps=20)
    assert taken(found) > 0 and taken(found * 3) == 0 and taken(ROWS * 5.0) == 0


@pytest.mark.parametrize(
    ("name", "params"),
    [("norm_clip", {"norm": 0.2}), ("median", {}), ("trimmed_mean", {"trim_fraction": 0.2})],
)
def test_a_rule_that_bounds_what_a_row_does_gives_all_there_is(
    name: str, params: dict[str, float]
) -> None:
    """No factor of either form brings the model further along the poison."""
    defend, aim = copy_of(name, **params), ROWS.mean(0)

    def progress(rows: Tensor) -> float:
        after = on(defend, torch.cat([HONEST, rows]))
        return (after.weight @ after.rows / after.weight.sum() @ aim).item()

    tried = [
        progress(scale * form)
        for scale in (0.1, 0.3, 1, 3, 10, 30, 100)
        for form in (ROWS, aim.expand_as(ROWS))
    ]
    assert progress(sent(defend)) >= max(tried) - 1e-5


def test_it_beats_fixed_factors_against_a_rule_that_clips() -> None:
    fixed = [
        effect(CLAIM, f"badnets(share=0.2){scaled}")
        for scaled in ("", "+model_replacement(strength=3)")
    ]
    assert effect(CLAIM, CLAIM.attack) > max(fixed) + 0.15


REMEMBER = [
    "centered_clipping(radius=0.2)",
    "clipped_clustering",
    "flanders",
    "fldetector(window=2, warm=0)",
    "foolsgold",
    "indicator(samples=50, epochs=4)",
    "sparsefed(norm=0.2)",
]


def at_round(number: int, params: Tensor, defend: RunDefense) -> AttackView:
    """The adversary's view of a round: its rehearsed rows are HONEST and a little else."""
    trained = iter(HONEST + 0.01 * number)
    return replace(
        attack_view("table", malicious=4),
        round=number,
        params=params,
        total=20,
        defend=defend,
        train=lambda vector, data: next(trained),
        unpoisoned=lambda: torch.zeros(4, D),
    )


def flat(memory: Any) -> list[Any]:
    """Everything that a defense remembers, in an order of its own."""
    if isinstance(memory, dict):
        memory = [item for key in sorted(memory) for item in (key, memory[key])]
    if isinstance(memory, (list, tuple)):
        return [leaf for item in memory for leaf in flat(item)]
    return [memory]


@pytest.mark.parametrize("chain", REMEMBER)
def test_the_copy_remembers_what_the_defense_does_where_the_rehearsal_is_right(chain: str) -> None:
    """The server is sent the very rows that the adversary made up, for three rounds."""
    (part,) = to_chain(chain, "defense")
    defend, attack = copy_of(part.name, **part.params), adaptive(steps=0)
    assert attack.plan is not None and attack.craft is not None and attack.remember is not None
    state: Any = None
    memory, params = None, torch.linspace(-1, 1, D)
    for number in range(3):
        view = at_round(number, params, defend)
        state = attack.plan(state, view)
        pairs = list(zip(flat(state.copy.memory), flat(memory), strict=True))
        for copied, real in pairs:
            if isinstance(real, Tensor):
                torch.testing.assert_close(copied, real)
            else:
                assert copied == real
        rows = attack.craft(state, ROWS, view)
        state = pickle.loads(pickle.dumps(attack.remember(state, rows, view)))
        updates = state.past.updates
        assert torch.equal(updates.rows, torch.cat([HONEST + 0.01 * number, rows]))
        after, memory = defend(updates, memory, (number, params))
        weight = after.weight[:, None]
        params = params + (weight * after.rows).sum(0) / weight.sum()
    assert len(pairs) > 1 or pairs[0][1] is not None


def test_where_the_copy_remembers_its_own_step_the_real_one_takes_its_place() -> None:
    defend, attack = copy_of("centered_clipping", radius=0.2), adaptive(steps=0)
    assert attack.plan is not None and attack.craft is not None and attack.remember is not None
    params, moved = torch.zeros(D), 0.3 * torch.randn(D, generator=DRAWS)
    first = at_round(0, params, defend)
    state: Any = attack.plan(None, first)
    state = attack.remember(state, attack.craft(state, ROWS, first), first)
    later = at_round(2, params + moved, defend)  # nobody attacked in round 1
    planned: Any = attack.plan(state, later)
    torch.testing.assert_close(planned.copy.memory, moved / 2)


def last_state(chain: str, attack: str, cut: int | None = None) -> State:
    """The state after three rounds, of an experiment that went on from a copy after ``cut``."""
    spec = ARENA.replace(
        rounds=3,
        attack=to_chain(f"badnets(share=0.2)+{attack}", "attack"),
        defense=to_chain(chain, "defense"),
    )
    experiment = Experiment(spec, Path("unused"), "cpu")
    while experiment.rounds_left:
        if experiment.state.round == cut:
            kept = pickle.dumps(experiment.state)
            experiment = Experiment(spec, Path("unused"), "cpu")
            experiment.state = pickle.loads(kept)
        experiment.round()
    return experiment.state


@pytest.mark.parametrize("chain", REMEMBER)
def test_it_runs_against_every_defense_that_remembers_and_goes_on_from_any_round(
    chain: str,
) -> None:
    whole = last_state(chain, "adaptive(steps=1)")
    assert whole.attack[1].copy.memory is not None
    assert torch.equal(whole.params, last_state(chain, "adaptive(steps=1)", cut=2).params)
    fresh = last_state(chain, "adaptive(steps=1, history=false)")
    assert fresh.attack[1].past is None and fresh.attack[1].copy.memory is None
