"""Several adversaries in one federation: how they are written, what each sees and changes, how
their success is measured.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from backstop.platform.contract import Attack, AttackView, TestSet
from backstop.platform.experiment import Experiment, State, run
from backstop.platform.params import BadInput
from backstop.platform.rounds.finals import doubts
from backstop.platform.specs.change import change_spec
from backstop.platform.specs.part import chain_text, to_chain
from backstop.platform.specs.spec import spec_from_json, spec_to_json, validate
from backstop.platform.sweeps.twins import quiet_twin
from backstop.platform.training.adversaries import _Adversaries, adversaries
from backstop.platform.training.evaluate import success
from tests.arena import ARENA, first_rows
from tests.views import attack_view

NOWHERE = Path("unused")
SHORT = ARENA.replace(rounds=2, eval_every=2)
TWO = "badnets(target=1) | sig(target=2)"


def final_state(attack: str, **changes: object) -> tuple[State, Mapping[str, float]]:
    """What two rounds end with, and their figures."""
    states: list[State] = []
    spec = SHORT.replace(attack=to_chain(attack, "attack"), **changes)
    records = list(run(spec, folder=NOWHERE, device="cpu", keep=states.append))
    return states[-1], records[-1].metrics


@pytest.mark.parametrize("text", [TWO, "badnets(target=1)|sig(target=2)", f"  {TWO} "])
def test_the_text_is_read_and_written(text: str) -> None:
    chain = to_chain(text, "attack")
    assert chain_text(chain, "attack") == TWO
    spec = validate(SHORT.replace(attack=chain))
    assert spec_from_json(spec_to_json(spec)).id == spec.id
    assert to_chain(chain_text(spec.attack, "attack"), "attack") == spec.attack
    assert spec.id != SHORT.replace(attack=to_chain("badnets(target=1)+pgd", "attack")).id


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("badnets |", "breaks off|not of the form|leaves that form"),
        ("| badnets", "not of the form"),
        ("badnets || sig", "not of the form"),
        ("(badnets | sig)+pgd", "leaves that form at"),
        ("badnets | none", "an adversary has no stage"),
        ("none | badnets", "an adversary has no stage"),
        ("badnets | pgd", "adversary 2, pgd.*, has no trigger"),
        ("badnets | sig+blended", "both define the trigger"),
        ("badnets | overtrain+sig", "such as overtrain"),
        (" | ".join(["badnets"] * 5), "4 for 5 adversaries"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(text: str, reason: str) -> None:
    with pytest.raises(BadInput, match=reason) as refusal:
        Experiment(SHORT.replace(attack=to_chain(text, "attack")), NOWHERE, "cpu")
    assert "\n" not in str(refusal.value)


def test_more_adversaries_than_clients_need_more_clients() -> None:
    few = SHORT.replace(attack=to_chain(TWO, "attack"), clients=10, per_round=10, malicious=0.1)
    with pytest.raises(BadInput, match=r"at least 0\.15$"):
        validate(few)
    validate(few.replace(malicious=0.15))
    with pytest.raises(BadInput, match=r"at least clients=2$"):
        validate(few.replace(clients=1, per_round=1, malicious=1.0))


def test_an_adversary_that_never_attacks_is_told() -> None:
    changes = {"attackers": "in_turn", "rounds": 1}
    _, figures = final_state(TWO, **changes)
    named = {name: value for name, value in figures.items() if "absent" in name}
    assert named == {"run/absent_adversaries": 1, "run/absent_adversaries/2": 1}
    told = doubts({"final/attack_turns": 1.0, "final/absent_adversaries/2": 1.0})
    assert [line.startswith("adversary 2 had no client in an attacked") for line in told] == [True]
    for others in ({"rounds": 2}, {"dormant": True}):
        _, figures = final_state(TWO, **changes | others)
        assert "run/absent_adversaries" not in figures


def test_a_defense_is_one_chain() -> None:
    with pytest.raises(BadInput, match="a defense is one chain"):
        to_chain("median | krum", "defense")
    with pytest.raises(BadInput, match="names 3 plug-ins"):
        change_spec(SHORT, "dataset", "digits | patches")


def test_keys_find_stages_on_both_sides_and_strength_is_the_last() -> None:
    spec = SHORT.replace(attack=to_chain(f"{TWO}+model_replacement(strength=3)", "attack"))
    assert chain_text(change_spec(spec, "attack.badnets.size", 2).attack, "attack").startswith(
        "badnets(size=2, target=1) | sig"
    )
    changed = change_spec(spec, "attack.strength", 7)
    assert chain_text(changed.attack, "attack").endswith("model_replacement(strength=7)")
    assert chain_text(quiet_twin(spec).attack, "attack") == TWO


@pytest.mark.parametrize("members", [[0, 1, 2, 3, 4], [1, 4], [3], []])
def test_each_sees_its_own_clients_alone(members: list[int]) -> None:
    view = replace(attack_view("image", malicious=5), members=torch.tensor(members).long())
    several = _Adversaries((Attack(), Attack()))
    for number, own in enumerate(([0, 2, 4], [1, 3])):
        seen = several.seen(number, view)
        assert seen.clients == len(own) and seen.sizes == tuple(view.sizes[i] for i in own)
        for place, client in enumerate(own):
            assert torch.equal(seen.own(place).x, view.own(client).x)
        there = [client for client in members if client in own]
        assert seen.members.tolist() == [own.index(client) for client in there]
        if members:
            held = sum(view.sizes[i] for i in there) / sum(view.sizes[i] for i in members)
            assert seen.share == pytest.approx(view.share * held)
    draws = [several.seen(number, view).generator.initial_seed() for number in range(2)]
    assert len({*draws, view.generator.initial_seed()}) == 3


def test_an_adversary_without_a_client_in_the_round_plans_nothing() -> None:
    planned: list[tuple[str, AttackView]] = []

    def stage(name: str) -> Attack:
        def plan(state: None, view: AttackView) -> str:
            del state
            planned.append((name, view))
            return name

        return Attack(plan=plan, goal=lambda _, y: y)

    attack = adversaries([stage("one"), stage("two")])
    assert attack.plan is not None
    view = replace(attack_view("image", malicious=4), members=torch.tensor([1, 3]))
    assert attack.plan((None, None), view) == (None, "two")
    assert [name for name, _ in planned] == ["two"]


def test_two_that_do_the_same_are_one_bit_for_bit() -> None:
    alone, figures = final_state("badnets(target=1)")
    together, apart = final_state("badnets(target=1) | badnets(target=1)")
    assert torch.equal(alone.params, together.params)
    rate = figures["round/attack_success_rate"]
    assert [apart[f"round/attack_success_rate{end}"] for end in ("", "/1", "/2")] == [rate] * 3
    assert apart["round/untriggered_target_rate"] == figures["round/untriggered_target_rate"]


@pytest.mark.parametrize("stage", ["pgd(radius=0.2)", "constrain_and_scale(strength=1)"])
def test_local_steps_of_an_adversary_are_those_of_its_chain(stage: str) -> None:
    """Trained one by one and not in a block, so up to rounding."""
    chain = f"badnets(target=1)+{stage}"
    _, alone = first_rows(chain)
    _, together = first_rows(f"{chain} | {chain}")
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    _, plain = first_rows("badnets(target=1)")
    assert not torch.allclose(plain, alone, rtol=1e-4, atol=1e-5)
    _, mixed = first_rows(f"badnets(target=1) | {chain}")
    torch.testing.assert_close(mixed[::2], plain[::2], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed[1::2], alone[1::2], rtol=1e-4, atol=1e-5)


def test_each_crafts_its_own_rows() -> None:
    _, plain = first_rows(TWO)
    _, crafted = first_rows(f"{TWO}+model_replacement(strength=3)")
    assert torch.equal(crafted[::2], plain[::2])
    torch.testing.assert_close(crafted[1::2], 3 * plain[1::2])


def test_while_all_are_dormant_nobody_attacks_bit_for_bit() -> None:
    asleep, figures = final_state("a3fl(steps=2) | sig(target=2)", dormant=True)
    assert torch.equal(asleep.params, final_state("none")[0].params)
    assert {f"round/attack_success_rate/{number}" for number in (1, 2)} <= figures.keys()


def test_it_goes_on_from_a_stored_state_with_the_same_bytes() -> None:
    attack = "a3fl(steps=3) | mirage(target=1, steps=3)+neurotoxin"
    spec = SHORT.replace(attack=to_chain(attack, "attack"))
    states: list[State] = []
    whole = list(run(spec, folder=NOWHERE, device="cpu", keep=states.append))
    stored = pickle.loads(pickle.dumps(states[0]))
    rest = list(run(spec, folder=NOWHERE, device="cpu", state=stored))
    assert rest[-1].metrics == whole[-1].metrics


@pytest.mark.parametrize(
    ("attack", "changes"),
    [
        ("badnets | physical(target=2)", {}),
        ("bad_pfl(steps=1)", {"attack_stop": 1}),
        ("badnets | bad_pfl(target=2, steps=1)", {"attack_start": 2, "evaluate_by": "clients"}),
    ],
)
def test_a_test_set_with_draws_is_the_same_after_an_interruption(
    attack: str, changes: Mapping[str, object]
) -> None:
    """It is made once for a state of the attack, in whatever process the rounds after it are."""
    spec = SHORT.replace(attack=to_chain(attack, "attack"), rounds=3, eval_every=1, **changes)
    states: list[State] = []
    whole = list(run(spec, folder=NOWHERE, device="cpu", keep=states.append))
    for done, state in enumerate(states[:-1], 1):
        stored = pickle.loads(pickle.dumps(state))
        rest = list(run(spec, folder=NOWHERE, device="cpu", state=stored))
        assert [record.metrics for record in rest] == [item.metrics for item in whole[done:]]


def rates(first: list[int], second: list[int], *, paired: bool = False) -> Mapping[str, float]:
    """The figures of two adversaries who want classes 1 and 2 of four samples of class 0 each, for
    these predictions; without the trigger one of four is class 1 and three are class 2.
    """
    wanted = torch.tensor([1] * 4 + [2] * 4)
    made = TestSet(torch.empty(8, 0), wanted, torch.zeros(8).long(), paired, group=wanted - 1)
    untriggered = torch.tensor([1, 2, 2, 2]) if paired else None
    return success(torch.tensor(first + second), made, untriggered)


def test_the_worst_is_what_counts_and_each_stands_beside_it() -> None:
    found = rates([1, 1, 0, 0], [2, 2, 2, 0], paired=True)
    assert found == {
        "round/attack_success_rate": 0.75,
        "round/attack_success_rate/1": 0.5,
        "round/attack_success_rate/2": 0.75,
        "round/untriggered_target_rate": 0.75,
        "round/trigger_effect": 0.0,
        "round/robust_accuracy": 0.25,
    }
    other = rates([1, 1, 1, 0], [2, 0, 0, 0])
    assert other["round/attack_success_rate"] == 0.75 and other["round/robust_accuracy"] == 0.25
    assert "round/trigger_effect" not in other


def test_two_targets_for_one_trigger_shut_each_other_out_and_two_triggers_do_not() -> None:
    """What the authors of ``mirage`` call infighting."""

    def both(attack: str) -> Tensor:
        spec = ARENA.replace(attack=to_chain(attack, "attack"), malicious=0.4)
        figures = list(run(spec, folder=NOWHERE, device="cpu"))[-1].metrics
        return torch.tensor([figures[f"round/attack_success_rate/{number}"] for number in (1, 2)])

    shared = both("badnets(target=1, share=0.4) | badnets(target=2, share=0.4)")
    apart = both("badnets(target=1, share=0.4) | sig(target=2, share=0.4, delta=0.3)")
    assert shared.sum() < 1.05 and apart.min() > shared.min() + 0.1
    assert apart.sum() > shared.sum() + 0.2
