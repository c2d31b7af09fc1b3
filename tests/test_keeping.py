"""What clients keep of their own: it is in no row, survives threads, actors and interruptions, and
nothing else moves it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from backstop.platform import plugins
from backstop.platform.contract import Attack, AttackView, Defense, Part, Updates
from backstop.platform.experiment import Experiment, State, run
from backstop.platform.params import BadInput
from backstop.platform.specs.part import to_chain
from backstop.platform.specs.spec import Spec, spec_from_json, spec_to_json, validate
from backstop.platform.training.adversaries import _Adversaries
from backstop.platform.training.client_rules import Sheet
from backstop.platform.workers.clients import Clients, InProcess
from tests.keepers import KEEPERS, NOWHERE, SMALL, experiment, small

PARTS = ["fedbn", "fedrep(head_epochs=2)"]
ALONE = ["ditto", "lockdown(anneal=0.1)"]  # which who attacks does not train


def bytes_of(spec: Spec, clients: Clients | None = None) -> tuple[bytes, list[object]]:
    """The last state and the figures of all rounds, as one can compare them."""
    states: list[State] = []
    told = [
        dict(record.metrics)
        for record in run(spec, folder=NOWHERE, device="cpu", clients=clients, keep=states.append)
    ]
    kept = [tensor for _, tensor in sorted(states[-1].kept.items())]
    vectors = torch.cat([states[-1].params, states[-1].buffers, *kept])
    return vectors.numpy().tobytes(), [sorted(states[-1].kept), told]


@pytest.mark.parametrize("defense", KEEPERS)
def test_any_number_of_threads_gives_the_same_bits(defense: str) -> None:
    assert bytes_of(small(defense), InProcess(3)) == bytes_of(small(defense))


@pytest.mark.parametrize("defense", KEEPERS)
def test_it_goes_on_from_a_stored_state_with_the_same_bits(defense: str) -> None:
    straight = experiment(small(defense), rounds=3)
    stored = io.BytesIO()
    torch.save(experiment(small(defense), rounds=2).state, stored)
    stored.seek(0)
    second = experiment(small(defense))
    second.state = torch.load(stored, weights_only=False)
    second.round()
    assert torch.equal(straight.state.params, second.state.params)
    assert straight.state.kept.keys() == second.state.kept.keys()
    for client, own in straight.state.kept.items():
        assert torch.equal(own, second.state.kept[client])


def test_a_state_from_before_clients_could_keep_anything_is_read() -> None:
    assert State(*tuple(experiment(SMALL).state)[:6]).kept == {}


@pytest.mark.parametrize("defense", PARTS)
@pytest.mark.parametrize("attack", ["badnets", "badnets+gaussian", "badnets+bapfl"])
def test_no_row_holds_what_is_private_whoever_sends_it(defense: str, attack: str) -> None:
    begun = experiment(small(defense, attack=to_chain(attack, "attack")), rounds=1)
    private = begun.built.keeping.private  # type: ignore[union-attr]
    assert private is not None
    cohort = begun.built.cohort(1)
    assert torch.isin(cohort, begun.built.malicious).any()
    _, trained, matrix = begun._train(begun.state, cohort)
    rows = matrix.of(torch.ones(len(cohort), dtype=torch.bool))
    assert not rows[:, private[0]].any()
    assert not trained.buffers[:, private[1]].any()
    assert (rows[:, ~private[0]] != 0).any(1).all()


@pytest.mark.parametrize("defense", PARTS)
@pytest.mark.parametrize("after", ["", "weak_dp", "crfl(norm=5, noise=0.01, draws=3)", "median"])
def test_the_server_never_moves_what_is_private(defense: str, after: str) -> None:
    first = experiment(small(defense))
    chain = f"{defense}+{after}" if after else defense
    last = experiment(small(chain), rounds=3)
    params, buffers = last.built.keeping.private  # type: ignore[union-attr, misc]
    assert torch.equal(last.state.params[params], first.state.params[params])
    assert torch.equal(last.state.buffers[buffers], first.state.buffers[buffers])
    assert not torch.equal(last.state.params[~params], first.state.params[~params])


def kept_after(defense: str, rounds: int) -> Mapping[int, Tensor]:
    return experiment(small(defense), rounds).state.kept


@pytest.mark.parametrize("defense", KEEPERS)
def test_a_client_keeps_what_it_has_trained_until_it_trains_again(defense: str) -> None:
    begun = experiment(small(defense))
    before: Mapping[int, Tensor] = {}
    for number in range(3):
        there = set(begun.built.cohort(number).tolist())
        if defense in ALONE:
            there -= set(begun.built.malicious.tolist())
        begun.round()
        kept = begun.state.kept
        assert set(kept) == set(before) | there
        for client, own in kept.items():
            same = client in before and torch.equal(own, before[client])
            assert same == (client not in there)
        before = kept


def test_the_server_is_told_by_those_who_do_not_attack() -> None:
    begun = experiment(small("lockdown(anneal=0.1)", attack_start=1), rounds=1)
    views, state, bad = begun.views, begun.state, set(begun.built.malicious.tolist())
    assert set(state.kept) & bad  # they were honest in the first round
    assert set(views.server(state._replace(round=0)).told) == set(state.kept)
    assert set(views.server(state).told) == set(state.kept) - bad
    assert views.attack(state).carried is not None
    assert not experiment(small("ditto"), rounds=1).views.server(state).told


def test_what_is_not_finite_is_not_kept() -> None:
    start, none = torch.zeros(3), torch.zeros(0)
    sheet = Sheet([4, 7], start, none, {4: torch.ones(2), 7: torch.ones(2)})
    sheet.keep(4, torch.tensor([1.0, torch.nan]))
    sheet.keep(7, torch.tensor([2.0, 3.0]))
    assert sheet.trained.kept.tolist() == [[1.0, 1.0], [2.0, 3.0]]


def test_the_adversary_sees_the_model_with_what_its_clients_keep() -> None:
    begun = experiment(small("fedrep(head_epochs=2)"), rounds=2)
    state, built = begun.state, begun.built
    view, server = begun.views.attack(state), begun.views.server(state)
    assert built.keeping is not None
    assert view.private is not None
    theirs = [state.kept[client] for client in built.malicious.tolist() if client in state.kept]
    assert torch.equal(view.params[view.private], torch.stack(theirs).mean(0))
    assert torch.equal(view.params[~view.private], state.params[~view.private])
    assert torch.equal(server.params, state.params)
    data = view.own(0)
    assert not view.train(view.params, data)[view.private].any()


def of_two(begun: Experiment, number: int) -> tuple[AttackView, list[int]]:
    """What one of two adversaries sees, and who its clients are."""
    seen = _Adversaries((Attack(), Attack())).seen(number, begun.views.attack(begun.state))
    return seen, begun.built.malicious[number::2].tolist()


TWO = {"attack": to_chain("badnets(target=1) | badnets(target=2)", "attack"), "per_round": 9}


@pytest.mark.parametrize("defense", PARTS)
def test_each_of_two_adversaries_sees_what_its_own_clients_keep(defense: str) -> None:
    begun = experiment(small(defense, **TWO), rounds=2)
    state, built = begun.state, begun.built
    keeping = built.keeping
    assert keeping is not None
    models = []
    for number in range(2):
        view, clients = of_two(begun, number)
        own = keeping.mean(state.kept[client] for client in clients)
        params, buffers = keeping.used((state.params, state.buffers), own)
        x = view.own(0).x
        assert torch.equal(view.params, params)
        assert torch.equal(view.model(params, x), built.net.logits(params, x, buffers))
        models.append(params)
    assert not torch.equal(*models)


def test_each_of_two_adversaries_has_the_memory_of_its_own_first_client() -> None:
    begun = experiment(small("lockdown(anneal=0.1)", attack_start=1, **TWO), rounds=1)
    masks = []
    for number in range(2):
        view, clients = of_two(begun, number)
        assert view.carried is not None
        assert torch.equal(view.carried, begun.state.kept[clients[0]])
        masks.append(view.carried)
    assert not torch.equal(*masks)


def test_each_of_two_adversaries_tries_the_defense_with_its_own_data() -> None:
    begun = experiment(SMALL.replace(**TWO, root_size=400), rounds=1)
    roots: list[Tensor] = []
    shown = Defense(init=lambda view: roots.append(view.root.x))
    begun.views.built = begun.built._replace(defense=shown)
    updates = Updates(torch.zeros(2, len(begun.state.params)), torch.ones(2), torch.arange(2))
    for number in range(2):
        view, _ = of_two(begun, number)
        assert view.defend is not None
        view.defend(updates)
        held = {sample.numpy().tobytes() for sample in view.data.x}
        assert {sample.numpy().tobytes() for sample in roots[number]} == held


def test_dormant_attackers_keep_what_honest_clients_would() -> None:
    for defense in KEEPERS:
        calm = experiment(small(defense, attack=()), rounds=3)
        dormant = experiment(small(defense, dormant=True), rounds=3)
        assert torch.equal(calm.state.params, dormant.state.params)
        for client, own in calm.state.kept.items():
            assert torch.equal(own, dormant.state.kept[client])


def refused(**changes: object) -> str:
    with pytest.raises(BadInput) as error:
        Experiment(SMALL.replace(**changes), NOWHERE, "cpu")
    return str(error.value)


def test_what_cannot_be_kept_is_refused_in_one_line() -> None:
    assert refused(defense=(Part("fedbn"),)) == (
        "defense fedbn: clients keep their BatchNorm layers, and model mlp has none; take one that"
        " has: normed_mlp, resnet18(norm=batch)"
    )
    assert refused(defense=(Part("fedrep"),), model=Part("logistic")) == (
        "defense fedrep: clients keep their head, and model logistic is nothing else, so nothing"
        " would be trained together; take a model with more layers"
    )
    both = refused(defense=to_chain("fedrep+median+ditto", "defense"))
    assert both == (
        "defense fedrep+median+ditto: fedrep and ditto both say what clients have of their own;"
        " keep one of them"
    )


@pytest.mark.parametrize("chain", ["ditto+{}", "{}+ditto", "norm_clip+ditto+median+{}"])
@pytest.mark.parametrize("repair", ["fine_pruning", "nad", "neural_cleanse"])
def test_a_repair_of_a_model_that_nobody_uses_is_refused_in_one_line(
    chain: str, repair: str
) -> None:
    text = chain.format(repair)
    with pytest.raises(BadInput) as error:
        validate(SMALL.replace(defense=to_chain(text, "defense")))
    assert str(error.value) == (
        f"defense {text}: {repair} changes the final global model alone, and under ditto clients"
        " are measured on models of their own, which that does not reach; leave one of them out, or"
        " have clients share a part (fedbn, fedrep)"
    )


def test_a_repair_that_does_not_say_what_it_is_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    chain = to_chain("ditto+nad", "defense")
    silent = replace(plugins.defense_facts("nad"), repairs=False)
    told = plugins.defense_facts
    monkeypatch.setattr(
        plugins, "defense_facts", lambda name: silent if name == "nad" else told(name)
    )
    assert refused(defense=chain).endswith("add REPAIRS = True to its file")


@pytest.mark.parametrize("defense", ["fedbn", "fedrep(head_epochs=2)", "fedavg"])
def test_a_repair_reaches_what_clients_share(defense: str) -> None:
    spec = small(defense) if defense != "fedavg" else SMALL.replace(evaluate_by="clients")
    chain = (*spec.defense, *to_chain("nad(epochs=30)", "defense"))
    figures = list(run(spec.replace(defense=chain), folder=NOWHERE, device="cpu"))[-1].metrics
    assert figures["repaired/clean_accuracy"] != figures["round/clean_accuracy"]


def test_what_moves_the_model_in_a_round_reaches_models_beside_it() -> None:
    spec = small("ditto")
    chain = (*spec.defense, *to_chain("norm_clip(norm=0.001)", "defense"))
    with_rule, alone = bytes_of(spec.replace(defense=chain)), bytes_of(spec)
    assert with_rule[1] != alone[1]


def test_a_spec_says_who_measures_only_where_it_is_not_the_server() -> None:
    plain = validate(SMALL)
    assert "evaluate_by" not in spec_to_json(plain)
    measured = validate(SMALL.replace(defense=(Part("fedrep"),)))
    assert measured.evaluate_by == "clients"
    assert spec_to_json(measured)["evaluate_by"] == "clients"
    assert spec_from_json(spec_to_json(measured)) == measured
    assert SMALL.replace(evaluate_by="clients").id != plain.id
