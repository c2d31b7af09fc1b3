"""What a search compares its proposals with is the same for all shares of poison."""

from __future__ import annotations

import pytest

from backstop.platform import plugins
from backstop.platform.contract import Part, Spec
from backstop.platform.experiment import run
from backstop.platform.sweeps.objectives import ACCURACY, SUCCESS
from backstop.platform.sweeps.twins import POISON_SHARE, quiet_twin, shared_quiet_twin

TASKS = {
    "image": (Part("digits"), Part("mlp")),
    "table": (Part("synthetic"), Part("logistic")),
    "text": (Part("topics"), Part("bag_of_words")),
}
TRIGGERS = [
    name
    for name in plugins.names("attacks")
    if plugins.attack_facts(name).trigger
    and POISON_SHARE in plugins.find("attacks", name).parameters
]
RATES = [ACCURACY.replace("final/", "round/"), SUCCESS.replace("final/", "round/")]


def rates(spec: Spec) -> list[list[float]]:
    return [[record.metrics[name] for name in RATES] for record in run(spec, device="cpu")]


@pytest.mark.parametrize("name", TRIGGERS)
def test_a_dormant_trigger_poisons_nothing_whatever_its_share(name: str) -> None:
    dataset, model = TASKS[(plugins.kinds("attacks", name) or ("image",))[0]]
    base = Spec(
        dataset=dataset,
        model=model,
        clients=6,
        per_round=3,
        malicious=0.5,
        selection="fixed",
        alpha=None,
        rounds=2,
        batch=32,
        root_size=10,
    )
    little, much = (
        base.replace(attack=(Part(name, {POISON_SHARE: share}),)) for share in (0.1, 0.9)
    )
    assert quiet_twin(little).id != quiet_twin(much).id
    assert shared_quiet_twin(little).id == shared_quiet_twin(much).id
    reached = rates(quiet_twin(little))
    assert reached == rates(quiet_twin(much)) == rates(shared_quiet_twin(much))
