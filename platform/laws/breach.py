"""A law that a plug-in breaks, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

from backstop.platform.contract import BrokenStage
from backstop.platform.params import BadInput

Law = Callable[[str], None]  # takes the plug-in's name; raises Breach


class Breach(Exception):  # noqa: N818 -- the word of the laws
    """A law is broken: what it expects, and what was seen instead."""

    def __init__(self, expected: str, seen: str) -> None:
        """Both in words."""
        super().__init__(f"expected {expected}; {seen}")


def hold(
    kept: object,
    expected: str,
    seen: str,
) -> None:
    """Raise a breach unless it is kept."""
    if not kept:
        raise Breach(expected, seen)


def breaches(
    name: str,
    laws: Mapping[str, Law],
    exempt: Collection[str] = (),
) -> Iterator[str]:
    """A line for each law that a plug-in breaks, those aside that its definition rules out. What
    its code raises breaks the law that called it.
    """
    for title, law in laws.items():
        if title in exempt:
            continue
        try:
            law(name)
        except (Breach, BadInput, BrokenStage) as error:
            yield f"{title}: {' '.join(str(error).split())}"
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- somebody's code under trial
            text = " ".join(str(error).split())
            yield f"{title}: raised {type(error).__name__}: {text}"
