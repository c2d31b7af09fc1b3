"""Every trigger on images before photographs: CIFAR-10, undefended FedAvg, 40 clean rounds and then
10 attacked ones.

10,000 training images, the tutorial's CNN, 20 clients, 10 a round of which exactly 2 are malicious,
IID. A new file in attacks/ joins by itself, at its defaults, with ``overtrain`` behind it; what its
paper does beyond that is in CHAINS. Attackers of Bagdasaryan et al. train for 6 epochs at a rate of
0.05, which is everybody's here; scaling by 5 lets 2 of 10 replace the model together,
γ = per_round / (server_lr · attackers). One seed, some twenty minutes on two cores; ``edge_case``
needs the Southwest airplanes.
"""

from __future__ import annotations

from backstop.platform.contract import Part, Spec
from backstop.platform.plugins import attack_facts, names
from backstop.platform.specs.change import grid

BASE = Spec(
    dataset=Part("cifar10", {"samples": 10000}),
    model=Part("cnn"),
    clients=20,
    per_round=10,
    malicious=0.2,
    selection="fixed",
    alpha=None,
    rounds=10,
    local_epochs=2,
    batch=64,
    optimizer=Part("sgd", {"lr": 0.05, "momentum": 0.9}),
    warmup=40,
    eval_every=5,
)
OVERTRAINED = "+overtrain(epochs=6)"
REPLACED = f"{OVERTRAINED}+model_replacement(strength=5)"
CHAINS = {
    "a3fl": "",  # attackers train like honest clients
    "dba": REPLACED,  # the published single shot is scaled
    # rare inputs that honest clients hold with true labels: their papers scale
    "edge_case": REPLACED,
    "label_flip": REPLACED,
    "semantic": REPLACED,
}


def _triggers() -> list[str]:
    """The attacks on images that say what success is."""
    facts = {name: attack_facts(name) for name in names("attacks")}
    return [
        name
        for name, fact in facts.items()
        if fact.trigger and "image" in (fact.kinds or ("image",))
    ]


def attacks_on_cifar10() -> list[Spec]:
    """No attack and every trigger on images at its defaults against FedAvg."""
    chains = [name + CHAINS.get(name, OVERTRAINED) for name in _triggers()]
    return grid(BASE, attack=["none", *chains])
