"""Neural attention distillation: the distillation erases what fine-tuning alone leaves, and odd
features break nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from backstop.defenses import nad as plugin
from backstop.platform.contract import Samples, ServerView
from backstop.platform.specs.part import to_chain
from backstop.search_spaces.quickstart import BASE
from tests.arena import last_metrics
from tests.views import server_view

ATTACKED = BASE.replace(
    attack=to_chain("badnets", "attack"),
    clients=20,
    per_round=10,
    rounds=12,
    eval_every=12,
    root_size=100,
    seed=1,
)


def metrics(defense: str) -> Mapping[str, float]:
    return last_metrics(ATTACKED.replace(defense=to_chain(defense, "defense")))


def finished(view: ServerView, **params: float) -> Tensor:
    finish = plugin.nad(**params).finish  # type: ignore[arg-type]
    assert finish
    return finish(None, view)


def test_distillation_erases_what_fine_tuning_leaves() -> None:
    tuned, distilled = metrics("nad(beta=0)"), metrics("nad")
    assert distilled["round/attack_success_rate"] > 0.8
    assert distilled["repaired/attack_success_rate"] < 0.2
    assert distilled["repaired/attack_success_rate"] < tuned["repaired/attack_success_rate"] - 0.15
    assert distilled["repaired/clean_accuracy"] > distilled["round/clean_accuracy"] - 0.05


def test_the_student_ends_nearer_to_the_teachers_attention() -> None:
    view = server_view(24)
    guide = view.params
    for _ in range(10):
        guide = guide + view.train(guide, view.root)

    def apart(params: Tensor) -> float:
        one, other = (plugin._attention(view.features(p, view.root.x)) for p in (params, guide))
        return float((one - other).norm(dim=1).mean())

    free, held = finished(server_view(24), beta=0.0), finished(server_view(24), beta=10.0)
    assert apart(held) < apart(free) / 2


def test_attention_does_not_depend_on_sign_and_size() -> None:
    units = torch.tensor([[1.0, -2.0, 0.5], [0.0, 0.0, 0.0]])
    found = plugin._attention(units)
    torch.testing.assert_close(found, plugin._attention(-3 * units))
    torch.testing.assert_close(
        found, torch.tensor([[1.0, 4.0, 0.25], [0.0, 0.0, 0.0]]) / 17.0625**0.5
    )


@pytest.mark.parametrize("count", [1, 2, 20])
def test_small_root_sets_and_the_same_bits(count: int) -> None:
    view, again = (
        replace(view, root=Samples(*(part[:count] for part in view.root)))
        for view in (server_view(24), server_view(24))
    )
    before = view.params.clone()
    found = finished(view)
    assert found.shape == before.shape
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert torch.equal(found, finished(again))
    assert torch.equal(view.params, before)
    assert not torch.equal(found, before)


def test_dead_units_and_a_teacher_like_the_student_have_a_gradient() -> None:
    dead = replace(
        server_view(24), features=lambda params, x: params[:5].relu() * torch.zeros(len(x), 5)
    )
    still = replace(server_view(24), train=lambda params, given: torch.zeros_like(params))
    for view in (dead, still):
        assert not torch.equal(finished(view), view.params)  # not given up


def test_a_repair_that_is_not_finite_is_given_up() -> None:
    view = replace(server_view(24), train=lambda params, given: params * torch.nan)
    found = finished(view)
    assert torch.equal(found, view.params)
    assert found is not view.params
