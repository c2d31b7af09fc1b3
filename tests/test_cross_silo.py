"""Ten sites of very unequal size: what weights by sample counts do to an update times 1000."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from backstop.platform import plugins
from backstop.platform.contract import Updates
from backstop.platform.experiment import Experiment
from backstop.platform.training.mean import weighted_mean
from backstop.search_spaces.cross_silo import BASE, SITES, cross_silo

NOWHERE = Path("unused")


def test_the_smallest_site_attacks_in_every_round() -> None:
    for spec in {spec.seed: spec for spec in cross_silo()}.values():
        built = Experiment(spec, NOWHERE, "cpu").built
        (malicious,) = built.malicious.tolist()
        assert built.sizes[malicious] == min(built.sizes)
        assert built.attack_turns()[-1] == spec.rounds
        for index in range(spec.rounds):
            assert built.cohort(index).tolist() == list(range(SITES))


def test_all_defenses_that_the_plain_federation_takes_are_there() -> None:
    stages = [stage for spec in cross_silo() for stage in spec.defense]
    taken = {
        name
        for name in plugins.names("defenses")
        if not plugins.defense_facts(name).keeps
        and "buffers" not in plugins.defense_facts(name).needs
    }
    assert {stage.name for stage in stages} | {"fedavg"} == taken
    assert {stage.params["f"] for stage in stages if "f" in stage.params} == {1}


def test_the_smallest_has_a_hundred_and_fiftieth_of_the_data() -> None:
    sizes = Experiment(BASE, NOWHERE, "cpu").built.sizes
    assert min(sizes) / sum(sizes) == pytest.approx(0.0065, abs=0.0003)
    assert max(sizes) / sum(sizes) == pytest.approx(0.645, abs=0.003)


@pytest.mark.parametrize(("share", "moved"), [(0.0055, 5.5), (0.006, 6.0), (9 / 1387, 6.5)])
def test_an_update_times_a_thousand_outweighs_its_sample_count(share: float, moved: float) -> None:
    """All sites agree on one update u; one of them sends 1000 u: the mean moves by another
    999 · share of it.
    """
    update = torch.tensor([1.0, -2.0, 0.5])
    rows = torch.stack([update, 1000 * update])
    mean = weighted_mean(rows, torch.tensor([1 - share, share]))
    away = (mean - update).norm() / update.norm()
    assert float(away) == pytest.approx(999 * share, rel=1e-4)
    assert float(away) == pytest.approx(moved, abs=0.05)


def test_what_a_weight_cannot_do_a_bound_can_and_what_that_costs() -> None:
    """Clipped to the length of the others the site moves the mean by its share; but the rule counts
    sites, not samples, and its share is then one of ten.
    """
    update = torch.tensor([[3.0, 4.0]])
    rows = torch.cat([update.repeat(9, 1), -1000 * update])
    weight = torch.tensor([*[110.0] * 9, 6.0])
    clip = plugins.build("defenses", "norm_clip", {"norm": 5.0})
    clipped, _ = clip.apply(Updates(rows, weight, torch.arange(10)), None, None)
    bounded = weighted_mean(clipped.rows, clipped.weight)
    torch.testing.assert_close(bounded, (9 - 1) / 10 * update[0])
    assert weighted_mean(rows, weight)[0] < -5 * update[0, 0]
