"""Every defense as it stands in the spaces on digits: with its defaults, those aside that are in
other units than this task's or that assume a number of attackers; and the federation that it
stands in, whose model has BatchNorm where a defense looks at its statistics.
"""

from __future__ import annotations

from backstop.platform.contract import Part, Spec
from backstop.platform.plugins import defense_facts, find, names
from backstop.platform.specs.part import parse_part
from backstop.search_spaces.quickstart import BASE

ATTACKERS = 4  # of the 20 clients in a round; what a defense that assumes a number is told
# honest updates of this task are 0.2 to 0.7 long, the model 5 at first and 9 at the end
NORM = 0.2

BATCH_NORM = BASE.replace(model=parse_part("convnet(width=8, modules=2)"))
BY_CLIENTS = BASE.replace(evaluate_by="clients")
OWN_NORMS = BY_CLIENTS.replace(model=Part("normed_mlp"))
FEDERATIONS = (BASE, BATCH_NORM, BY_CLIENTS, OWN_NORMS)


def federation_for(name: str) -> Spec:
    """What a defense is put into, one of :data:`FEDERATIONS`."""
    facts = defense_facts(name)
    if facts.keeps:
        return OWN_NORMS if facts.keeps == "norms" else BY_CLIENTS
    return BATCH_NORM if "buffers" in facts.needs else BASE


def defense_settings(*, attackers: int = ATTACKERS, norm: float = NORM) -> dict[str, str]:
    """Name → text form, of all defenses there are; ``norm`` is where those that clip do it."""
    clipping = {
        "centered_clipping": f"centered_clipping(radius={norm})",
        "crfl": "crfl(norm=8.0, noise=0.002)",
        "norm_clip": f"norm_clip(norm={norm})",
        "sparsefed": f"sparsefed(norm={norm})",
        "weak_dp": f"weak_dp(norm={norm}, noise=0.002)",
    }
    return {name: clipping.get(name) or _setting(name, attackers) for name in names("defenses")}


def _setting(name: str, attackers: int) -> str:
    return f"{name}(f={attackers})" if "f" in find("defenses", name).parameters else name
