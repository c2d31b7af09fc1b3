"""Views that lack what a caller has not given: asking for it is an error of its own."""

from __future__ import annotations

from typing import Any


class Lacking(Exception):  # noqa: N818 -- it names what happened
    """A stage asked for a field of its view that nobody has given."""

    def __init__(self, field: str) -> None:
        """``field`` is that of the view."""
        super().__init__(field)
        self.field = field


class Partial:
    """A view some fields of which are lacking: asking for one raises :class:`Lacking`."""

    lacking: frozenset[str]

    def __getattribute__(self, name: str) -> Any:
        """The field, where it is known."""
        known = object.__getattribute__(self, "__dict__")
        if name in known.get("lacking", ()):
            raise Lacking(name)
        return object.__getattribute__(self, name)
