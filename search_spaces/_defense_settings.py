"""Every defense as it stands in the spaces on digits: with its defaults, those aside that are in
other units than this task's or that assume a number of attackers.
"""

from __future__ import annotations

from backstop.platform.contract import Part, Spec
from backstop.platform.plugins import defense_facts, find, names
from backstop.search_spaces.quickstart import BASE

ATTACKERS = 4  # of the 20 clients in a round; what a defense that assumes a number is told
# honest updates of this task are 0.2 to 0.7 long, the model 5 at first and 9 at the end
SETTINGS = {
    "centered_clipping": "centered_clipping(radius=0.2)",
    "crfl": "crfl(norm=8.0, noise=0.002)",
    "norm_clip": "norm_clip(norm=0.2)",
    "sparsefed": "sparsefed(norm=0.2)",
    "weak_dp": "weak_dp(norm=0.2, noise=0.002)",
}


def defense_settings() -> dict[str, str]:
    """Name → text form, of all defenses there are."""
    return {name: _setting(name) for name in names("defenses")}


def task_for(name: str) -> Spec:
    """The task of a defense: digits, with a model that has BatchNorm layers where it needs some."""
    if defense_facts(name).keeps == "norms":
        return BASE.replace(model=Part("normed_mlp"))
    return BASE


def _setting(name: str) -> str:
    if name in SETTINGS:
        return SETTINGS[name]
    return f"{name}(f={ATTACKERS})" if "f" in find("defenses", name).parameters else name
