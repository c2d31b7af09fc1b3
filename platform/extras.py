"""Libraries that Backstop works without: what to say where one that is asked for is not there."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from backstop.platform.params import BadInput


def need(
    libraries: Iterable[str],
    extra: str,
    where: str,
) -> None:
    """Raise BadInput, which begins with ``where``, unless all libraries are installed; the optional
    extra brings them.

    >>> need(["json"], "models", "model x")
    >>> need(["json", "no_such_library"], "models", "model x")
    Traceback (most recent call last):
    backstop.platform.params.BadInput: model x needs no_such_library, which is not installed; \
pip install 'backstop[models]' brings it, in a checkout pip install -c constraints.txt -e '.[models]'
    """
    lacking = [library for library in libraries if find_spec(library) is None]
    if lacking:
        them, be = ("it", "is") if len(lacking) == 1 else ("them", "are")
        raise BadInput(
            f"{where} needs {' and '.join(lacking)}, which {be} not installed; pip install"
            f" 'backstop[{extra}]' brings {them}, in a checkout pip install -c constraints.txt -e"
            f" '.[{extra}]'"
        )
