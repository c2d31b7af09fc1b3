"""Clients that never answer: who they are, what a round without honest answers does, and how it
shows.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from backstop.platform import plugins
from backstop.platform.contract import Part, Record, Spec
from backstop.platform.experiment import Experiment, State, run
from backstop.platform.params import BadInput
from backstop.platform.results.tables.notes import footnotes
from backstop.platform.rounds.finals import final
from backstop.platform.specs.part import to_chain
from backstop.platform.specs.spec import spec_to_json, validate
from backstop.platform.training import partition
from backstop.platform.workers.clients import InProcess

NOWHERE = Path("unused")
SPEC = Spec(
    clients=12,
    per_round=4,
    malicious=0.5,
    rounds=12,
    batch=16,
    block=4,
    root_size=20,
    alpha=10.0,
    optimizer=Part("sgd", {"lr": 0.1}),
    attack=to_chain("badnets+model_replacement(strength=2)", "attack"),
    client_dropout=0.7,
)


def records(spec: Spec, **given: Any) -> list[Record]:
    return list(run(spec, folder=NOWHERE, device="cpu", **given))


def cohorts(spec: Spec) -> list[set[int]]:
    built = Experiment(spec, NOWHERE, "cpu").built
    return [set(built.cohort(index).tolist()) for index in range(spec.rounds)]


def test_a_spec_without_it_is_written_as_before() -> None:
    assert "client_dropout" not in spec_to_json(SPEC.replace(client_dropout=0.0))
    assert spec_to_json(SPEC)["client_dropout"] == 0.7
    assert SPEC.id != SPEC.replace(client_dropout=0.0).id


@pytest.mark.parametrize("chance", [1.0, -0.1, math.nan])
def test_some_client_has_to_answer_sometimes(chance: float) -> None:
    with pytest.raises(BadInput, match=r"client_dropout=\S+ is not allowed.*\[0, 1\)"):
        validate(SPEC.replace(client_dropout=chance))


def test_each_client_stays_away_by_a_draw_of_its_own() -> None:
    everybody = torch.arange(1000)

    def away(asked: Tensor, dropout: float, at: int = 0) -> set[int]:
        answers = partition.answering(asked, dropout=dropout, seed=3, round=at)
        assert answers.tolist() == sorted(answers.tolist())
        return set(asked.tolist()) - set(answers.tolist())

    few, many = away(everybody, 0.2), away(everybody, 0.5)
    assert few < many
    assert abs(len(few) - 200) < 50 and abs(len(many) - 500) < 60  # four standard deviations
    assert away(everybody[::7], 0.5) == many & set(everybody[::7].tolist())
    assert away(everybody, 0.5, at=1) != many
    assert not away(everybody, 0.0)


def test_the_same_clients_are_asked_and_those_that_answer_send_the_same_rows() -> None:
    sent: dict[float, dict[int, Tensor]] = {}

    class Watched(InProcess):
        def train(self, round_index: int, *given: Any) -> Any:
            trained = super().train(round_index, *given)
            if not round_index:
                pairs = zip(trained.client.tolist(), trained.rows.clone(), strict=True)
                sent[self.built.spec.client_dropout] = dict(pairs)
            return trained

    for chance in (0.0, 0.5):
        records(SPEC.replace(client_dropout=chance, rounds=1, per_round=12), clients=Watched())
    assert 0 < len(sent[0.5]) < len(sent[0.0]) == 12
    for client, row in sent[0.5].items():
        assert torch.equal(row, sent[0.0][client])


def test_a_round_without_an_answer_moves_nothing() -> None:
    spec = SPEC.replace(defense=to_chain("fldetector+median", "defense"))
    states: list[State] = []
    told = records(spec, keep=states.append)
    empty = [index for index, cohort in enumerate(cohorts(spec)) if not cohort]
    assert empty and empty != list(range(spec.rounds))
    for index in empty:
        assert told[index].metrics["round/answered"] == 0
        assert "round/train_loss" not in told[index].metrics
        if index:
            before, after = states[index - 1], states[index]
            assert torch.equal(before.params, after.params)
            assert before.attack is after.attack and before.defense is after.defense
            accuracies = [told[at].metrics["round/clean_accuracy"] for at in (index - 1, index)]
            assert accuracies[0] == accuracies[1]
    assert [record.metrics["round/answered"] for record in told] == list(map(len, cohorts(spec)))
    assert final(told)["final/empty_rounds"] == len(empty)


def test_nobody_ever_answers() -> None:
    spec = SPEC.replace(client_dropout=0.999999, rounds=3)
    figures = final(records(spec))
    assert figures["final/clean_accuracy"] == figures["final/start_accuracy"]
    assert (figures["final/empty_rounds"], figures["final/attack_turns"]) == (3, 0)
    assert figures["final/diverged"] == 0


def test_malicious_clients_alone_are_counted_and_nothing_diverges_of_it() -> None:
    built = Experiment(SPEC, NOWHERE, "cpu").built
    malicious = set(built.malicious.tolist())
    alone = [index for index, cohort in enumerate(cohorts(SPEC)) if cohort and cohort <= malicious]
    told = records(SPEC)
    assert alone
    for index in alone:
        assert "round/train_loss" not in told[index].metrics
        assert told[index].metrics["defense/kept_weight_malicious"] == 1.0
    figures = final(told)
    assert figures["final/malicious_only_rounds"] == len(alone)
    assert figures["final/diverged"] == 0
    turns = sum(len(cohort & malicious) for cohort in cohorts(SPEC))
    assert figures["final/attack_turns"] == turns


KNOWING = [
    name
    for name in plugins.names("attacks")
    if plugins.attack_facts(name).knows == "all" and not plugins.attack_facts(name).kinds
]


@pytest.mark.parametrize("name", KNOWING)
def test_who_knows_the_honest_rows_bears_that_there_are_none(name: str) -> None:
    attack = to_chain(name, "attack")
    told = records(SPEC.replace(attack=attack, rounds=6, malicious=0.9))
    assert all(math.isfinite(record.metrics["round/clean_accuracy"]) for record in told)
    assert final(told)["final/malicious_only_rounds"]


def test_whose_turn_it_is_may_stay_away() -> None:
    spec = SPEC.replace(attackers="in_turn", per_round=2)
    built = Experiment(spec, NOWHERE, "cpu").built
    missing = [
        index
        for index in range(spec.rounds)
        if not torch.isin(built.attackers(index), built.cohort(index)).all()
    ]
    assert 0 < len(missing) < spec.rounds
    assert built.attack_turns()[-1] == spec.rounds - len(missing)
    for index in range(spec.rounds):
        assert torch.isin(built.attackers(index), built.asked(index)).all()


def test_a_warm_up_has_the_same_clients(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKSTOP_CACHE", str(tmp_path))
    clean = SPEC.replace(attack=(), malicious=0.0)
    long = records(clean)
    tail = records(clean.replace(warmup=4, rounds=8))
    figures = [
        {name: value for name, value in record.metrics.items() if name.startswith("round/")}
        for record in (*long[4:], *tail)
    ]
    assert figures[:8] == figures[8:]


def test_a_board_says_how_often_nobody_answered() -> None:
    from backstop.platform.results.figures.cells import Entry
    from backstop.platform.results.leaderboard.ranking import build_document

    told = final(records(SPEC))
    spec = spec_to_json(validate(SPEC))
    (note,) = [
        note
        for note in footnotes(build_document([Entry(SPEC.id, spec, told)], "away"))
        if note.startswith("clients drop out")
    ]
    assert f"nobody answered in {told['final/empty_rounds']:.3g} rounds" in note
    assert f"alone in {told['final/malicious_only_rounds']:.3g}" in note
