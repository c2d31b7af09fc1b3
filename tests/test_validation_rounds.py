"""A validation round: who is asked, what honest and malicious clients answer, and what of it is the
same whoever works.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import backstop
from backstop.platform import seeds
from backstop.platform.contract import (
    Answers,
    Asked,
    BrokenStage,
    ClientView,
    Defense,
    Part,
    Question,
    ServerView,
    Spec,
    Updates,
)
from backstop.platform.experiment import Experiment
from backstop.platform.params import BadInput
from backstop.platform.rounds import costs
from backstop.platform.specs.change import change_spec
from backstop.platform.specs.part import to_chain
from backstop.platform.specs.spec import validate
from backstop.platform.threats.lies import best_and_worst, lies
from backstop.platform.training.defense_chain import chain
from backstop.platform.training.network import to_unit_interval
from backstop.platform.workers.clients import InProcess

SPEC = Spec(
    clients=10,
    per_round=6,
    malicious=0.4,
    rounds=3,
    batch=16,
    root_size=20,
    alpha=0.5,
    optimizer=Part("sgd", {"lr": 0.1}),
    attack=to_chain("badnets", "attack"),
)


def told(models: Tensor, view: ClientView, client: int) -> Tensor:
    """What the client sees, as numbers: its id, its samples, its data, the model's length and a
    draw.
    """
    draw = torch.rand(1, generator=view.generator).item()
    sums = [float(client), float(len(view.data.y)), view.data.x.double().sum().item(), draw]
    numbers = [[*sums, model.double().norm().item()] for model in models]
    return torch.tensor(numbers, dtype=torch.float64)


def loud(models: Tensor, view: ClientView, client: int) -> Tensor:
    """Half for each model."""
    del view, client
    return torch.full((len(models), 1), 0.5)


def asking(
    heard: list[Answers],
    score: Any = told,
    voters: Callable[[Updates], Tensor | int] = lambda updates: updates.client,
    high: float = torch.inf,
) -> Defense:
    """A defense that asks about every row, and writes down what it hears."""

    def apply(updates: Updates, state: None, view: ServerView) -> tuple[Updates, None]:
        question = Question(view.params + updates.rows, updates.client, score, 0.0, high)
        heard.append(view.validate(question, voters(updates)))
        return updates, state

    return Defense(apply=apply)


def defended(spec: Spec, stage: Defense, clients: InProcess | None = None) -> Experiment:
    """An experiment with a defense that is in no file."""
    experiment = Experiment(spec, Path("unused"), "cpu", clients)
    experiment.built = experiment.built._replace(defense=chain(stage, names=["asking"]))
    experiment.views.built = experiment.built
    experiment.state = experiment.state._replace(defense=(None,))
    return experiment


def heard_in(
    spec: Spec,
    threads: int = 1,
    **told_so: Any,
) -> tuple[list[Answers], Experiment]:
    heard: list[Answers] = []
    experiment = defended(spec, asking(heard, **told_so), InProcess(threads))
    while experiment.rounds_left:
        experiment.round()
    experiment.close()
    return heard, experiment


def test_every_client_of_the_cohort_answers_by_its_own_data_and_draws() -> None:
    heard, experiment = heard_in(SPEC.replace(attack=()))
    built = experiment.built
    for round_index, answers in enumerate(heard):
        cohort = built.cohort(round_index)
        assert torch.equal(answers.client, cohort)
        assert answers.scores.shape == (6, 6, 5) and answers.scores.dtype == torch.float64
        for client, scores in zip(cohort.tolist(), answers.scores, strict=True):
            data = to_unit_interval(built.data.train.x[built.shards[client]])
            draw = torch.rand(
                1, generator=seeds.generator(SPEC.seed, "validation", round_index, client)
            )
            expected = [client, built.sizes[client], data.double().sum().item(), draw.item()]
            assert scores[0, :4].tolist() == expected
            assert len(scores[:, 4].unique()) == 6 and torch.equal(scores[0, :4], scores[5, :4])


@pytest.mark.parametrize(
    ("stage", "model"), [("fedrep", "mlp(hidden=8)"), ("fedbn", "normed_mlp(hidden=8)")]
)
def test_a_client_scores_models_with_its_own_part_in_them(stage: str, model: str) -> None:
    """The server's model has there what stood before the first round: nobody uses it."""

    heard: list[Answers] = []

    def seen(models: Tensor, view: ClientView, _: int) -> Tensor:
        vectors = [view.params, *models]
        own = [vector[view.private].double().sum() for vector in vectors]
        outputs = [view.model(vector, view.data.x[:1]).double().sum() for vector in vectors]
        return torch.stack([*own, *outputs]).expand(len(models), -1)

    def ask(updates: Updates, state: None, view: ServerView) -> tuple[Updates, None]:
        question = Question(view.params[None], torch.tensor([-1]), seen)
        heard.append(view.validate(question, updates.client))
        return updates, state

    spec = change_spec(change_spec(SPEC, "defense", stage), "model", model)
    experiment = defended(spec.replace(attack=(), rounds=2), Defense(apply=ask))
    built = experiment.built
    keeping = built.keeping
    assert keeping is not None
    for _ in range(2):
        before = experiment.state
        experiment.round()
        client, scores = heard[-1]
        for one, said in zip(client.tolist(), scores, strict=True):
            vectors = (before.params, before.buffers)
            params, buffers = keeping.used(vectors, experiment.state.kept[one])
            index = built.shards[one][:1]
            x = to_unit_interval(built.data.train.x[index])
            with torch.no_grad():
                logit = built.net.logits(params, x, buffers).double().sum()
            own = params[keeping.withheld].double().sum()
            expected = torch.stack([own, own, logit, logit])[None]
            torch.testing.assert_close(said, expected, rtol=1e-5, atol=1e-5)


def test_threads_do_not_change_a_bit() -> None:
    alone, _ = heard_in(SPEC, high=1.0)
    together, _ = heard_in(SPEC, threads=3, high=1.0)
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one.client, other.client) and torch.equal(one.scores, other.scores)


def test_voters_are_drawn_from_all_clients_by_a_stream_that_no_attack_moves() -> None:
    heard, _ = heard_in(SPEC, voters=lambda _: 4)
    calm, _ = heard_in(SPEC.replace(attack=()), voters=lambda _: 4)
    everyone, _ = heard_in(SPEC, voters=lambda _: 99)
    drawn = [answers.client.tolist() for answers in heard]
    assert drawn == [answers.client.tolist() for answers in calm]
    assert all(len(set(one)) == 4 and one == sorted(one) for one in drawn)
    assert len(set(map(tuple, drawn))) > 1
    assert all(answers.client.tolist() == list(range(10)) for answers in everyone)


def test_malicious_clients_speak_for_their_own_models_and_against_all_others() -> None:
    heard, experiment = heard_in(SPEC, score=loud, high=1.0)
    malicious = experiment.built.malicious
    for answers in heard:
        bad = torch.isin(answers.client, malicious)
        assert bad.any() and not bad.all()
        assert (answers.scores[~bad] == 0.5).all()
        assert (answers.scores[bad][:, bad] == 1.0).all()
        assert (answers.scores[bad][:, ~bad] == 0.0).all()


@pytest.mark.parametrize(
    "changes", [{"attack": ()}, {"dormant": True}, {"attack_start": 3, "rounds": 4}]
)
def test_who_does_not_attack_does_not_lie(changes: dict[str, Any]) -> None:
    heard, _ = heard_in(SPEC.replace(**changes), score=loud, high=1.0)
    assert all((answers.scores == 0.5).all() for answers in heard[:3])


def test_a_stage_says_how_much_is_lied_and_about_what() -> None:
    def scores(stage: str) -> Tensor:
        attack = to_chain(f"badnets+lying_validators({stage})", "attack")
        heard, experiment = heard_in(SPEC.replace(attack=attack), score=loud, high=1.0)
        bad = torch.isin(heard[0].client, experiment.built.malicious)
        assert (heard[0].scores[~bad] == 0.5).all()
        return torch.stack([heard[0].scores[bad][:, which].mean() for which in (bad, ~bad)])

    assert scores("strength=0").tolist() == [0.5, 0.5]
    assert scores("strength=0.5").tolist() == [0.75, 0.25]
    assert scores("accuse=False").tolist() == [1.0, 0.5]
    assert scores("vouch=False").tolist() == [0.5, 0.0]


def test_without_bounds_a_lie_is_what_the_client_says_of_another_model() -> None:
    scores = torch.tensor([[[1.0, -3.0], [5.0, 0.0], [2.0, 7.0]]])
    question = Question(torch.zeros(3, 2), torch.arange(3), loud)
    asked = Asked(question, torch.tensor([False, True, False]), scores)
    assert [bound.flatten().tolist() for bound in best_and_worst(asked)] == [[5, 7], [1, -3]]
    assert lies(asked).tolist() == [[[1, -3], [5, 7], [1, -3]]]


def test_a_model_of_several_is_the_attacks_where_one_of_its_clients_is_in_the_round() -> None:
    def apply(updates: Updates, state: None, view: ServerView) -> tuple[Updates, None]:
        question = Question(view.params[None], torch.tensor([-1]), loud, 0.0, 1.0)
        heard.append(view.validate(question, 10))
        return updates, state

    for selection, wanted in (("fixed", 1.0), ("random", None)):
        heard: list[Answers] = []
        spec = SPEC.replace(selection=selection, per_round=2, malicious=0.5, rounds=8)
        experiment = defended(spec, Defense(apply=apply))
        built = experiment.built
        for round_index in range(8):
            experiment.round()
            here = torch.isin(built.cohort(round_index), built.malicious).any()
            said = heard[-1].scores[torch.isin(heard[-1].client, built.malicious)]
            assert (said == (float(here) if wanted is None else wanted)).all()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"score": lambda models, view, client: torch.zeros(len(models))},
            r"a score gives finite numbers \(6, s\), a row for each model; it gave \(6,\), 0 not",
        ),
        (
            {"score": lambda models, view, client: torch.full((len(models), 2), torch.nan)},
            r"it gave \(6, 2\), 12 not finite",
        ),
        (
            {"voters": lambda updates: torch.tensor([0, 77])},
            r"clients \[77\] cannot be asked; give ids of this round's clients",
        ),
    ],
)
def test_what_is_no_score_and_no_client_of_the_round_ends_the_run_in_one_line(
    changes: dict[str, Any], line: str
) -> None:
    with pytest.raises(BrokenStage, match=f"^defense asking: round 1: ValueError: .*{line}"):
        heard_in(SPEC.replace(per_round=6, clients=6, selection="random"), **changes)


def test_clients_are_asked_in_apply_alone() -> None:
    def init(view: ServerView) -> Answers:
        return view.validate(Question(view.params[None], torch.tensor([-1]), loud), 1)

    experiment = Experiment(SPEC, Path("unused"), "cpu")
    stage = chain(Defense(init=init), names=["early"])
    with pytest.raises(BrokenStage, match="defense early: ValueError: clients can be asked in app"):
        stage.init(experiment.views.server(experiment.state))


def test_the_adversarys_copy_asks_its_own_clients_under_the_names_of_those_asked() -> None:
    heard: list[Answers] = []
    experiment = defended(SPEC, asking(heard))
    defend = experiment.views.attack(experiment.state).defend
    assert defend is not None
    rows = torch.randn(6, len(experiment.state.params), generator=seeds.generator(0, "tests"))
    defend(Updates(rows * 0.01, torch.ones(6), torch.arange(6) + 20))
    (answers,) = heard
    assert answers.client.tolist() == [*range(20, 26)]
    sizes = [experiment.built.sizes[client] for client in experiment.built.malicious.tolist()]
    assert answers.scores[:, 0, 1].tolist() == [*sizes, *sizes][:6]
    assert answers.scores[:, 0, 0].tolist() == [*range(20, 26)]


def test_its_seconds_are_a_phase_of_their_own() -> None:
    spent: dict[str, float] = {}
    cpu = torch.device("cpu")
    with costs.measured("outer", cpu, spent), costs.measured("inner", cpu, spent):
        sum(range(2_000_000))
    assert spent["time/inner_s"] > 10 * spent["time/outer_s"] > 0
    experiment = Experiment(SPEC.replace(defense=(Part("flshield"),)), Path("unused"), "cpu")
    record = experiment.round()
    assert record is not None
    assert record.costs["time/validate_s"] > 0 and record.costs["time/aggregate_s"] > 0


@pytest.mark.parametrize("name", ["baffle", "flshield", "crowdguard"])
def test_a_library_says_in_one_line_what_it_lacks(name: str) -> None:
    with pytest.raises(BadInput) as caught:
        backstop.defense(f"norm_clip+{name}")
    assert str(caught.value) == (
        f"defense {name} lets clients score models on their own data, which no call has; leave it"
        f" out here, and run it in a federation of Backstop's own: backstop run --defense {name}"
    )


def test_a_file_that_does_not_say_that_it_asks_is_told_so_where_it_asks(tmp_path: Path) -> None:
    (tmp_path / "shy.py").write_text(
        '"""Shy: it asks and does not say so."""\n'
        "from backstop.platform.contract import Defense, Question\n"
        "def shy() -> Defense:\n"
        "    def apply(updates, state, view):\n"
        "        view.validate(Question(updates.rows, updates.client, None), updates.client)\n"
        "        return updates, state\n"
        "    return Defense(apply=apply)\n"
    )
    library = backstop.defense(str(tmp_path / "shy.py"))
    with pytest.raises(BadInput, match=r"shy.* lets clients score models on their own data"):
        library.aggregate(torch.ones(3, 4))


@pytest.mark.parametrize("mixing", ["bucketing", "nnm"])
def test_rows_of_nobody_are_refused_where_their_senders_are_asked(mixing: str) -> None:
    with pytest.raises(BadInput, match="flshield needs each client's own"):
        validate(SPEC.replace(defense=to_chain(f"{mixing}+flshield", "defense")))
