"""Laws that hold for every defense, over the folder: a new file is picked up by itself.

A defense for which a law cannot hold by its definition lists the law in its constant EXEMPT.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from backstop.platform import plugins, robust
from backstop.platform.contract import Defense, Part, Slot, Spec, Updates
from backstop.platform.laws import defenses
from backstop.platform.laws.breach import breaches
from backstop.platform.laws.defenses import DEFENSE_LAWS as LAWS
from backstop.platform.laws.defenses import apply, noise, sound
from backstop.platform.laws.defenses import build_defense as build
from backstop.platform.laws.defenses import weighed as updates
from backstop.platform.params import BadInput
from backstop.platform.specs.spec import validate
from backstop.platform.training.defense_chain import chain
from tests import reference
from tests.views import server_view

NAMES = plugins.names("defenses")
# of what learns in many passes, whose ends are tried by the law on any number of rows
FEW_PASSES: dict[str, dict[str, Any]] = {"snowball": {"epochs": 18}, "fedgame": {"steps": 10}}
SOUND = ("any number of rows", "huge rows")  # laws that ask for sound updates and nothing else


def quick(name: str, **params: Any) -> Defense:
    """A defense by name, which learns in few passes unless it is told otherwise."""
    return build(name, **{**FEW_PASSES.get(name, {}), **params})


def aggregate(after: Updates) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The server's last step, in float64."""
    return defenses.aggregate(after).numpy()


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", NAMES)
def test_a_defense_keeps_the_laws(name: str, law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if law in SOUND:
        monkeypatch.setattr(defenses, "build_defense", quick)
    exempt = plugins.defense_facts(name).exempt
    assert list(breaches(name, {law: LAWS[law]}, exempt)) == []


def plain_inputs() -> dict[str, Tensor]:
    """Rows as people write them down: tenths, symmetric, duplicated and tied ones, in one
    coordinate and in more.
    """
    wide, tenths = noise(4, 6, "wide"), torch.tensor([[0.2], [0.3], [0.4]])
    return {
        "tenths": tenths,
        "tenths on both sides": torch.tensor([[-0.3], [0.1], [0.2], [-0.1], [0.7]]),
        "tenths twice": tenths.repeat(2, 1),
        "symmetric": torch.tensor([[-1.0], [1.0]]),
        "symmetric around a zero": torch.tensor([[-0.3], [-0.1], [0.0], [0.1], [0.3]]),
        "symmetric and wide": torch.cat([wide, -wide]),
        "signs": torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]]),
        "duplicates": wide[[0, 1, 0, 2, 1, 0, 3]],
        "two values": torch.tensor([[0.1], [0.1], [0.1], [0.4], [0.4]]),
        "all but one": torch.tensor([[0.1], [0.1], [0.1], [0.1], [0.4]]),
        "zeros but one": torch.tensor([[0.0], [0.0], [0.0], [0.1]]),
        "equally far": torch.tensor([[0.0], [1.0], [2.0], [3.0], [4.0], [5.0], [6.0]]),
        "unit vectors": torch.eye(5),
        "one line": torch.arange(1.0, 8.0)[:, None] * torch.tensor([0.1, -0.2, 0.3]),
    }


def stays_sound(name: str, given: Updates) -> None:
    sound(apply(quick(name), given), given)


@pytest.mark.parametrize("name", NAMES)
def test_plain_rows_give_finite_rows_and_weights(name: str) -> None:
    tried = {}
    for kind, rows in plain_inputs().items():
        given = updates(rows)
        equal = given._replace(weight=torch.ones(len(rows)))
        tried[f"{kind}, sample counts"] = partial(stays_sound, given=given)
        tried[f"{kind}, equal weights"] = partial(stays_sound, given=equal)
    assert list(breaches(name, tried)) == []


@pytest.mark.parametrize("name", NAMES)
def test_of_equal_rows_the_smaller_client_id_comes_first(name: str) -> None:
    for one, other in [(0, 8), (3, 4), (2, 6), (7, 8)]:
        for number in range(5):
            rows = noise(9, 33, f"ties {number}")
            rows[other] = rows[one]
            given = updates(rows)._replace(weight=torch.ones(9))
            after = apply(build(name), given)
            if len(after.rows) == 9 and (after.client >= 0).all():
                assert after.weight[one] >= after.weight[other], (one, other, number)


@pytest.mark.parametrize("name", NAMES)
def test_number_of_threads_does_not_matter(name: str) -> None:
    given, threads = updates(noise(6, 70_000)), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = apply(build(name), given)
        torch.set_num_threads(3)
        assert all(
            torch.equal(one, other)
            for one, other in zip(alone, apply(build(name), given), strict=True)
        )
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [1e6, 1e30, 3e38])
def test_a_huge_row_gives_no_nan(name: str, size: float) -> None:
    rows = noise(10, 24)
    rows[4] = size
    rows[4, ::2] = -size
    given = updates(rows)
    sound(apply(build(name), given), given)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("heavy", [0, 9])
def test_one_client_with_nearly_all_the_weight(name: str, heavy: int) -> None:
    given = updates(noise(10, 24))
    weight = torch.ones(10)
    weight[heavy] = 1e7
    given = given._replace(weight=weight)
    after = apply(build(name), given)
    sound(after, given)
    assert np.abs(aggregate(after)).max() <= 1000 * given.rows.abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_chains_run_or_are_refused_in_one_line(name: str) -> None:
    given = updates(noise(10, 24))
    for other in ("norm_clip", "median", "multi_krum", "bucketing"):
        for names in ((name, other), (other, name)):
            try:
                validate(Spec(defense=tuple(Part(part) for part in names)))
            except BadInput as refusal:
                assert "put" in str(refusal) and "\n" not in str(refusal)
                assert names[1] in str(refusal)
            else:
                sound(apply(chain(*map(build, names)), given), given)


@pytest.mark.parametrize("name", NAMES)
def test_a_stage_that_predicts_names_the_parameter_that_turns_it_off(name: str) -> None:
    switch = plugins.defense_facts(name).predicts
    assert (build(name).predict is not None) == (switch is not None)
    assert switch is None or build(name, **{switch: 0}).predict is None


def twins() -> dict[str, tuple[Callable[..., Any], dict[str, list[Any]]]]:
    """Name → its slow twin and the values of its parameters to try."""
    choices: dict[str, list[Any]] = {
        "mask_threshold": [0.0, 0.1, 0.55, 0.6, 1.0],
        "trim_fraction": [0.0, 0.1, 0.29, 0.45, 0.499],
        "norm": [1e-2, 1.0, 1e3],
        "f": [None, 0, 1, 5],
        "keep": [None, 1, 3],
        "weights": ["equal", "samples"],
        "rescale": [False, True],
    }
    found = {name: (twin, choices) for name, twin in reference.DEFENSES.items()}
    for file in sorted((Path(__file__).parents[1] / "references").glob("*.py")):
        module = importlib.import_module(f"tests.references.{file.stem}")
        if file.stem in NAMES and getattr(module, "LAW", True):
            found[file.stem] = (getattr(module, file.stem), module.CHOICES)
    return found


TWINS = twins()


@pytest.mark.parametrize("name", sorted(TWINS))
@settings(max_examples=15, derandomize=True, deadline=None, database=None)
@given(
    n=st.integers(1, 40),
    d=st.integers(1, 9),
    scale=st.sampled_from([1e-3, 1.0, 1e6]),
    zeros=st.booleans(),
    data=st.data(),
)
def test_agrees_with_the_reference(
    name: str, n: int, d: int, scale: float, zeros: bool, data: st.DataObject
) -> None:
    params = {
        key: parameter.default
        for key, parameter in plugins.find("defenses", name).parameters.items()
    }
    twin, choices = TWINS[name]
    params |= {key: data.draw(st.sampled_from(choices[key]), label=key) for key in params}
    rows = noise(n, d, f"example {n} {d}") * 100 * scale
    if zeros:
        rows[rows.abs() < scale / 2] = 0.0
    given = updates(rows)
    draws = (
        {"generator": server_view(d).generator}
        if "generator" in inspect.signature(twin).parameters
        else {}
    )
    wanted = twin(given.rows.double().numpy(), given.weight.double().numpy(), **params, **draws)
    np.testing.assert_allclose(
        aggregate(apply(build(name, **params), given)), wanted, rtol=1e-5, atol=1e-6 * scale
    )


@pytest.mark.parametrize(
    ("share", "values", "wanted"),
    [
        (1 / 3, [0, 1, 100], 1.0),
        (4 / 15, [*range(11), 100, 100, 100, 100], 7.0),
        (8 / 33, [*range(25), *[10**6] * 8], 16.0),
    ],
)
def test_trimmed_mean_leaves_out_the_count_that_a_fraction_means(
    share: float, values: list[int], wanted: float
) -> None:
    given = updates(torch.tensor(values).float()[:, None])
    assert apply(build("trimmed_mean", trim_fraction=share), given).rows.item() == wanted


def votes(up: int, down: int, still: int = 0) -> Updates:
    return updates(
        torch.cat([torch.full((up, 1), 2.0), torch.full((down, 1), -1.0), torch.zeros(still, 1)])
    )


@pytest.mark.parametrize(
    ("up", "down", "still", "wanted"),
    [
        (16, 4, 0, 2.0),  # |16 - 4| / 20 is 0.6 exactly
        (15, 5, 0, 0.0),
        (4, 16, 0, -1.0),
        (12, 0, 8, 2.0),  # zeros agree with nothing and are trimmed like any value
        (11, 0, 9, 0.0),
        (0, 0, 20, 0.0),
        (1, 0, 0, 2.0),
        (2, 0, 0, 2.0),
        (1, 1, 0, 0.0),
        (3, 0, 0, 2.0),
        (2, 1, 0, 0.0),
        (80, 20, 0, 2.0),
        (79, 21, 0, 0.0),
    ],
)
def test_invariant_golden(up: int, down: int, still: int, wanted: float) -> None:
    assert apply(build("invariant"), votes(up, down, still)).rows.tolist() == [[wanted]]


def test_invariant_takes_the_two_middle_values_of_twenty() -> None:
    rows = torch.arange(1.0, 21.0).unsqueeze(1)
    assert apply(build("invariant"), updates(rows)).rows.item() == 10.5


@pytest.mark.parametrize("n", range(1, 61))
def test_invariant_trims_symmetrically_where_the_published_slice_takes_one_value_fewer(
    n: int,
) -> None:
    # of the values of old minus new parameters, in ascending order
    place = [*range(int(0.45 * n), int(0.55 * n))]
    published = [n - 1 - k for k in place]  # places of the same values among the updates
    ours = [*range(robust.floor_count(0.45, n), n - robust.floor_count(0.45, n))]
    assert len(ours) - len(published) == (n % 20 != 0) and set(published) <= set(ours)
    assert (
        apply(build("invariant"), updates(torch.arange(1.0, n + 1)[:, None])).rows.item()
        == (n + 1) / 2
    )
    if n == 10:
        assert [k + 1 for k in published] == [6]


def test_invariant_is_and_mask_with_trimmed_mean() -> None:
    given = updates(noise(20, 500) + 0.006)
    stages = chain(build("and_mask"), build("trimmed_mean", trim_fraction=0.45))
    whole = apply(build("invariant"), given).rows
    assert torch.equal(whole, apply(stages, given).rows)
    assert 0 < (whole == 0).sum() < 500


def test_and_mask_keeps_rows_and_weights() -> None:
    after = apply(build("and_mask"), votes(15, 5))
    assert after.rows.shape == (20, 1) and not after.rows.any() and (after.client >= 0).all()


def test_and_mask_divides_each_tensor_by_the_share_that_is_left_of_it() -> None:
    rows = torch.tensor([[1.0, 1.0, 1.0, 1.0, 3.0, 3.0], [3.0, -1.0, -1.0, -1.0, 5.0, -3.0]])
    layout = (Slot("one", 0, (2, 2)), Slot("two", 4, (2,)))
    view = replace(server_view(6), layout=layout)
    after = build("and_mask", mask_threshold=1.0, rescale=True).apply(updates(rows), None, view)[0]
    assert after.rows.tolist() == [[4.0, 0.0, 0.0, 0.0, 6.0, 0.0], [12.0, 0.0, 0.0, 0.0, 10.0, 0.0]]


def test_norm_clip_leaves_short_rows_bit_for_bit() -> None:
    rows = noise(6, 24)
    rows[3] *= 1e4
    after = apply(build("norm_clip", norm=1.0), updates(rows))
    assert torch.equal(after.rows[[0, 1, 2, 4, 5]], rows[[0, 1, 2, 4, 5]])
    assert after.rows[3].norm().item() == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("name", ["krum", "multi_krum"])
@pytest.mark.parametrize("size", [1.0, 1e6, 3e38])
@pytest.mark.parametrize("f", [None, 3])
def test_krum_rejects_f_far_rows(name: str, size: float, f: int | None) -> None:
    rows = noise(10, 24)
    rows[[0, 4, 9]] = torch.tensor([[size], [-size], [size]])
    kept = apply(build(name, f=f), updates(rows)).weight > 0
    assert kept.sum() == (1 if name == "krum" else 7)
    assert not kept[[0, 4, 9]].any()


def test_krum_ties_go_to_the_first_client_and_keep_wins_over_f() -> None:
    tied = updates(torch.ones(5, 3))
    assert apply(build("krum"), tied).weight.nonzero().flatten().tolist() == [0]
    three = build("multi_krum", f=4, keep=3)
    assert apply(three, tied).weight.nonzero().flatten().tolist() == [0, 1, 2]


def test_krum_tells_near_equal_rows_apart() -> None:
    rows = torch.full((30, 50), 1.0)
    rows[7] += torch.tensor(2.0**-20)
    assert not apply(build("multi_krum", f=1), updates(rows)).weight[7]
