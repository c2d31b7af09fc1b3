from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from backstop.defenses.fltrust import fltrust
from backstop.platform.contract import Samples, Updates
from backstop.platform.seeds import generator
from tests import reference
from tests.references import fltrust as twin
from tests.views import server_view


def trusted(rows: Tensor, own: Tensor, weight: Tensor | None = None) -> Updates:
    given = Updates(
        rows, torch.ones(len(rows)) if weight is None else weight, torch.arange(len(rows))
    )
    return fltrust().apply(
        given, None, replace(server_view(len(own)), train=lambda params, samples: own)
    )[0]


def aggregate(after: Updates) -> Tensor:
    kept = after.weight > 0
    return torch.from_numpy(
        reference.weighted_mean(
            after.rows[kept].double().numpy(), after.weight[kept].double().numpy()
        )
    ).float()


def noise(n: int, d: int, name: str = "rows") -> Tensor:
    return torch.randn(n, d, generator=generator(0, "tests", name))


@pytest.mark.parametrize(("n", "d"), [(1, 1), (3, 2), (20, 50), (7, 9000)])
def test_agrees_with_the_reference(n: int, d: int) -> None:
    rows, own = noise(n, d), noise(1, d, "own")[0] + 0.1
    rows[0] *= 1e3
    rows[n // 2] = 0
    wanted = twin.fltrust(rows.double().numpy(), own.double().numpy())
    np.testing.assert_allclose(aggregate(trusted(rows, own)), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("own", [1.0, 1e-5])
@pytest.mark.parametrize("length", [1e-37, 1e-3, 1.0, 1e6, 6e37])
def test_every_row_takes_the_servers_length(length: float, own: float) -> None:
    after = trusted(torch.tensor([[3.0, 4.0], [1.0, 0.0]]) * length, torch.tensor([0.3, 0.4]) * own)
    torch.testing.assert_close(
        after.rows, torch.tensor([[0.3, 0.4], [0.5, 0.0]]) * own, rtol=1e-5, atol=0
    )


def test_a_longer_attack_is_worth_no_more() -> None:
    rows, own = noise(10, 30), noise(1, 30, "own")[0]
    longer = torch.cat([rows[:1] * 1e6, rows[1:]])
    torch.testing.assert_close(aggregate(trusted(longer, own)), aggregate(trusted(rows, own)))


def test_weights_are_the_cosines_and_not_the_sample_counts() -> None:
    rows = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [-1.0, 0.1]])
    after = trusted(rows, torch.tensor([2.0, 0.0]), torch.tensor([1.0, 5.0, 1000.0, 994.0]))
    torch.testing.assert_close(after.weight, torch.tensor([1.0, 0.6, 0.0, 0.0]) * 500)
    torch.testing.assert_close(
        aggregate(after), torch.tensor([2 * (1 + 0.36) / 1.6, 2 * 0.48 / 1.6])
    )


@pytest.mark.parametrize("own", [[1.0, 1.0], [0.0, 0.0], [torch.nan, 1.0], [torch.inf, 1.0]])
def test_nothing_moves_where_nobody_is_trusted(own: list[float]) -> None:
    after = trusted(
        torch.tensor([[-1.0, 0.5], [-3e38, -3e38], [0.0, 0.0]]),
        torch.tensor(own),
        torch.tensor([3.0, 4.0, 5.0]),
    )
    assert not after.rows.any()
    assert after.weight.tolist() == [3, 4, 5]


def test_the_server_trains_on_its_root_set_from_the_global_model() -> None:
    view, seen = server_view(6), []

    def train(params: Tensor, samples: Samples) -> Tensor:
        seen.append((params, samples))
        return torch.ones(6)

    root = Samples(torch.arange(20.0).unsqueeze(1), torch.arange(20))
    for counts, size in (([10.0, 40.0, 60.0, 500.0], 50), ([3.0, 7.0, 8.0, 9.0], 8)):
        seen.clear()
        given = Updates(noise(4, 6), torch.tensor(counts), torch.arange(4))
        fltrust().apply(given, None, replace(view, train=train, root=root))
        ((params, samples),) = seen
        assert params is view.params
        assert torch.equal(samples.x[:, 0].long(), samples.y)
        times = samples.y.bincount(minlength=20)
        # as many steps as the round's median client takes
        assert len(samples.y) == size and times.max() - times.min() <= 1
