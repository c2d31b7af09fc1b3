"""Specs: their text form, their checks, and changes of them.

Search spaces outside this repository may import ``grid`` from here; new ones import it from
``backstop``.
"""


def __getattr__(name: str) -> object:
    """``grid``, imported when it is asked for: it stands above what this package's parts import."""
    if name == "grid":
        from backstop.platform.specs.change import grid

        return grid
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
