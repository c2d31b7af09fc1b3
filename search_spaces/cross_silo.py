"""Ten sites of very unequal size, all of them in every round, of which the smallest is dishonest:
what weights by sample counts do then, and which defenses hold (docs/cross_silo.md).

Sizes follow a power law of exponent 2: the largest of the ten has 64 % of the handwritten digits,
the smallest 0.7 %. It trains a patch and sends its update times 1000. Each defense faces that, and
none while the attack is dormant, for two seeds. A new file in defenses/ joins by itself, unless it
needs BatchNorm or keeps a part of the model at the clients. Defenses that assume a number of
attackers are told the true one; those that clip do it at the length of an update of the smaller
sites. No download; some ten minutes on two cores.
"""

from __future__ import annotations

from backstop.platform.contract import Part, Spec
from backstop.platform.specs.change import grid
from backstop.search_spaces._defense_settings import FEDERATIONS, defense_settings, federation_for

PLAIN = FEDERATIONS[0]  # those of the others need BatchNorm or evaluation by clients
SITES = 10
BASE = Spec(
    dataset=Part("digits"),
    model=Part("mlp"),
    clients=SITES,
    per_round=SITES,
    malicious=1 / SITES,
    malicious_by="fewest",
    alpha="sizes",
    size_exponent=2.0,
    rounds=20,
    batch=16,
    optimizer=Part("sgd", {"lr": 0.05, "momentum": 0.9}),
    root_size=50,
    eval_every=2,
    block=SITES,
)
ATTACK = "badnets(share=0.5)+model_replacement(strength=1000)"
NORM = 0.5  # of an update; in the first round those of three sites are longer, up to 7


def cross_silo() -> list[Spec]:
    """One attack × every defense × two seeds."""
    settings = defense_settings(attackers=1, norm=NORM)
    defenses = [usual for name, usual in settings.items() if federation_for(name) == PLAIN]
    return grid(BASE, seed=range(2), attack=[ATTACK], defense=defenses)
