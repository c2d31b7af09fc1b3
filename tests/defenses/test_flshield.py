from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from backstop.defenses.flshield import _shares, flshield
from backstop.platform import robust
from backstop.platform.contract import Answers, ClientView, Question, Samples, ServerView, Updates
from backstop.platform.seeds import generator
from backstop.platform.specs.part import to_chain
from tests.arena import ARENA, last_metrics
from tests.references import flshield as twin
from tests.views import model, samples, server_view

D = 24


def people(count: int) -> list[Samples]:
    """The data of so many clients: some lack a class, one has many samples of each."""
    held = [samples("table", 40, f"client {number}") for number in range(count)]
    few = [Samples(one.x[: 3 + number], one.y[: 3 + number]) for number, one in enumerate(held)]
    many = Samples(torch.cat([one.x for one in held]), torch.cat([one.y for one in held]))
    return [*few[:-1], many] if count > 1 else few


def view_of(data: list[Samples]) -> ServerView:
    """A server whose clients have these data, by their ids."""
    view = server_view(D)
    fields = {key: getattr(view, key) for key in FIELDS}

    def validate(question: Question, voters: Tensor | int) -> Answers:
        assert isinstance(voters, Tensor)
        scores = [
            question.answer(ClientView(**fields, data=data[client]), client)
            for client in voters.tolist()
        ]
        return Answers(voters, torch.stack(scores))

    return replace(view, validate=validate)


FIELDS = ("round", "params", "layout", "model", "features", "head", "classes", "generator")


def losses(params: Tensor, data: Samples) -> list[float]:
    found: list[float] = cross_entropy(
        model(params, data.x).double(), data.y, reduction="none"
    ).tolist()
    return found


@pytest.mark.parametrize("n", [1, 2, 3, 9])
@pytest.mark.parametrize("others", [0.0, 0.25, 0.9])
@pytest.mark.parametrize("case", ["plain", "tied", "zero"])
def test_it_keeps_what_the_twin_keeps(n: int, others: float, case: str) -> None:
    rows = torch.randn(n, D, generator=generator(0, "tests", "rows", n)) * 0.3
    if case == "tied" and n > 2:
        rows[1] = rows[2]
    if case == "zero":
        rows[0] = 0.0
    data, view = people(n), view_of(people(n))
    after, _ = flshield(others=others).apply(
        Updates(rows, torch.arange(1.0, n + 1), torch.arange(n)), None, view
    )
    stand = twin.representatives(rows.double().numpy(), others)
    impacts = np.array(
        [
            [
                [
                    twin.impact(
                        losses(view.params, own),
                        losses(view.params + torch.from_numpy(one).float(), own),
                        own.y.tolist(),
                        label,
                    )
                    for label in range(view.classes)
                ]
                for one in stand
            ]
            for own in data
        ]
    )
    assert after.weight.nonzero().flatten().tolist() == twin.kept(impacts)
    middle = np.median([twin.length(row) for row in rows.double().numpy()])
    assert (robust.norms(after.rows) <= middle * (1 + 1e-6)).all()
    assert after.weight[after.weight > 0].tolist() == [i + 1.0 for i in twin.kept(impacts)]


@pytest.mark.parametrize("others", [0.0, 0.25, 0.9])
def test_what_stands_for_a_row_is_mostly_itself(others: float) -> None:
    rows = torch.randn(7, D, generator=generator(0, "tests", "shares")) + 0.2
    rows[3] *= 100
    rows[5] = 0.0
    found = _shares(rows, robust.norms(rows), others).numpy() @ rows.double().numpy()
    wanted = twin.representatives(rows.double().numpy(), others)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)  # cosines are float32


def test_a_class_that_nobody_has_does_not_count() -> None:
    one = samples("table", 12)
    has = one.y < 2
    data = [Samples(one.x[has], one.y[has])] * 4
    rows = torch.randn(4, D, generator=generator(0, "tests", "lack"))
    after, _ = flshield().apply(Updates(rows, torch.ones(4), torch.arange(4)), None, view_of(data))
    assert int((after.weight > 0).sum()) == 2


def test_voters_that_lie_alone_are_left_out() -> None:
    data = [samples("table", 40)] * 9
    rows = torch.randn(9, D, generator=generator(0, "tests", "lies")) * 0.3
    given = Updates(rows, torch.ones(9), torch.arange(9))
    plain = view_of(data)

    def lying(question: Question, voters: Tensor | int) -> Answers:
        answers = plain.validate(question, voters)
        scores = answers.scores.clone()
        scores[[2, 5, 6], :, : plain.classes] *= -1000
        return answers._replace(scores=scores)

    honest, _ = flshield().apply(given, None, plain)
    fooled, _ = flshield().apply(given, None, replace(plain, validate=lying))
    assert torch.equal(honest.weight, fooled.weight)


@pytest.mark.parametrize(
    ("attack", "most"),
    [
        ("badnets(share=0.2)", 0.05),
        ("badnets(share=0.2)+lying_validators(strength=0.3)", 0.05),
        ("badnets(share=0.5)+model_replacement(strength=3)", 0.05),
    ],
)
def test_a_fifth_of_liars_does_not_bring_the_backdoor_in(attack: str, most: float) -> None:
    def success(**changes: Any) -> float:
        spec = ARENA.replace(attack=to_chain(attack, "attack"), **changes)
        return last_metrics(spec)["round/attack_success_rate"]

    assert success() > 0.6
    assert success(defense=to_chain("flshield", "defense")) < most


def test_half_of_a_calm_round_is_left_out() -> None:
    told = last_metrics(ARENA.replace(defense=to_chain("flshield", "defense"), rounds=2))
    assert math.isclose(told["defense/false_positive_rate"], 0.5, abs_tol=0.15)
