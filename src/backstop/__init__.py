"""Backstop: every federated backdoor attack against every defense, as a leaderboard anyone can
regenerate.

    import backstop

    specs = backstop.grid(backstop.Spec(), attack=["none", "badnets"], defense=["fedavg", "median"])
    board = backstop.sweep(specs, experiment="first")
    board.frame()

``import backstop`` imports nothing else: a name is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from backstop.platform.contract import BrokenStage as BrokenStage
    from backstop.platform.contract import Part as Part
    from backstop.platform.contract import Search as Search
    from backstop.platform.contract import Spec as Spec
    from backstop.platform.library.aggregation import defense as defense
    from backstop.platform.library.triggers import trigger as trigger
    from backstop.platform.notebook import Comparison as Comparison
    from backstop.platform.notebook import Leaderboard as Leaderboard
    from backstop.platform.notebook import compare as compare
    from backstop.platform.notebook import leaderboard as leaderboard
    from backstop.platform.notebook import load as load
    from backstop.platform.notebook import merge as merge
    from backstop.platform.notebook import run as run
    from backstop.platform.notebook import runs as runs
    from backstop.platform.notebook import search as search
    from backstop.platform.notebook import search_all as search_all
    from backstop.platform.notebook import sweep as sweep
    from backstop.platform.params import BadInput as BadInput
    from backstop.platform.plugins import names as names
    from backstop.platform.specs.change import change_spec as change_spec
    from backstop.platform.specs.change import grid as grid
    from backstop.platform.specs.part import parse_chain as parse_chain
    from backstop.platform.sweeps.plan import load_space as load_space

__version__ = "0.2.0"

_HOMES = {  # name → the module below backstop.platform that holds it; the imports above, once more
    "BadInput": "params",
    "BrokenStage": "contract",
    "Comparison": "notebook",
    "Leaderboard": "notebook",
    "Part": "contract",
    "Search": "contract",
    "Spec": "contract",
    "change_spec": "specs.change",
    "compare": "notebook",
    "defense": "library.aggregation",
    "grid": "specs.change",
    "leaderboard": "notebook",
    "load": "notebook",
    "load_space": "sweeps.plan",
    "merge": "notebook",
    "names": "plugins",
    "parse_chain": "specs.part",
    "run": "notebook",
    "runs": "notebook",
    "search": "notebook",
    "search_all": "notebook",
    "sweep": "notebook",
    "trigger": "library.triggers",
}


if not TYPE_CHECKING:  # a type checker would take every misspelled name for one that is made here

    def __getattr__(name: str) -> object:
        """A name of the package, imported when it is first used."""
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"backstop.platform.{_HOMES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    """The names to choose from, those that are not imported yet among them."""
    return [*_HOMES, "__version__"]
