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
    """Raise BadInput, which begins with ``where``, unless all libraries are installed.

    >>> need(["json"], "models", "model x")
    >>> need(["json", "no_such_library"], "models", "model x")
    Traceback (most recent call last):
    backstop.platform.params.BadInput: model x needs no_such_library, which is not installed; \
the extra models brings it: pip install '.[models]' in a checkout
    """
    lacking = [library for library in libraries if find_spec(library) is None]
    if lacking:
        several = len(lacking) > 1
        raise BadInput(
            f"{where} needs {' and '.join(lacking)}, which {'are' if several else 'is'} not"
            f" installed; the extra {extra} brings {'them' if several else 'it'}: pip install"
            f" '.[{extra}]' in a checkout"
        )
