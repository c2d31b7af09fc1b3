"""What a run was made of besides its spec: the data as they were read, the code of its plug-ins,
versions and device.

All three can change under an unchanged spec: a file is edited, a method is mended without a new
``VERSION``, a library is updated. They stand with every run, so that a change is seen and not
mixed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from backstop.platform import plugins
from backstop.platform.specs.part import Part, plugin_stages
from backstop.platform.specs.spec import Spec
from backstop.platform.training import loading
from backstop.platform.training.device import fingerprint

if TYPE_CHECKING:
    import torch

READING_LIMIT = 8000  # characters: MLflow cuts longer tag values off


class Origin(NamedTuple):
    """What besides the spec decides a run's figures. Empty fields are not known (an earlier
    version).
    """

    fingerprint: str = ""  # library versions and kind of device
    data: str = ""  # digest of the decoded data, and after a plus sign of the edge cases, if read
    code: Mapping[str, str] = {}  # "defense median" → digest of the plug-in's file
    reading: str = ""  # what the dataset made of its files, as JSON

    @property
    def tags(self) -> dict[str, str]:
        """The tags that a run carries."""
        code = json.dumps(dict(sorted(self.code.items())), separators=(",", ":"))
        return {
            "backstop.fingerprint": self.fingerprint,
            "backstop.digest": self.data,
            "backstop.code": code,
            "backstop.data": self.reading,
        }

    def difference(self, other: Origin) -> str:
        """What of this origin is not the other's, in words: ``other data``."""
        changed = sorted(
            name
            for name in {*self.code, *other.code}
            if self.code.get(name) != other.code.get(name)
        )
        words = []
        if self.data != other.data:
            words.append(f"other data (digest {self.data or 'unknown'}, now {other.data})")
        if self.fingerprint != other.fingerprint:
            words.append(f"{self.fingerprint or 'unknown versions'} (now {other.fingerprint})")
        if changed:
            words.append(f"other code of {', '.join(changed)}")
        return " and ".join(words)


def of_tags(tags: Mapping[str, str]) -> Origin:
    """The origin that a run's tags state."""
    code = json.loads(tags.get("backstop.code") or "{}")
    return Origin(
        tags.get("backstop.fingerprint", ""),
        tags.get("backstop.digest", ""),
        code,
        tags.get("backstop.data", ""),
    )


def code(spec: Spec) -> dict[str, str]:
    """``defense median`` → digest of the file, of every plug-in that a spec uses."""
    used = [("datasets", spec.dataset), ("models", spec.model)]
    used += [("attacks", stage) for stage in plugin_stages(spec.attack)]
    used += [("defenses", stage) for stage in spec.defense]
    return {
        f"{plugins.SINGULAR[group]} {part.name}": plugins.digest(group, part.name)
        for group, part in used
    }


def here(
    spec: Spec,
    folder: Path,
    where: torch.device,
    edge_cases: bool = False,
) -> Origin:
    """The origin of a run made now; ``edge_cases``: whether the dataset's own ones were read."""
    data = loading.content(spec.dataset, folder)
    if edge_cases:
        data += f"+{loading.edge_content(spec.dataset, folder)}"
    reading = loading.what_was_read(spec.dataset, folder, READING_LIMIT)
    return Origin(fingerprint(where), data, code(spec), reading)


def other_data(
    made: str,
    part: Part,
    folder: Path,
) -> str:
    """How the data that a run has read differ from those that are there now, in words; else empty.

    ``made`` is the run's digest. Raises BadInput where the data cannot be read.
    """
    if not made:
        return ""
    data, _, edge = made.partition("+")
    now = loading.content(part, folder)
    if data != now:
        return f"dataset {part} has changed: digest {data} then, {now} now"
    if edge and edge != (now := loading.edge_content(part, folder)):
        return f"the edge cases of dataset {part} have changed: digest {edge} then, {now} now"
    return ""


def other_code(made: Mapping[str, str], spec: Spec) -> list[str]:
    """The plug-ins of a spec whose files are not what a run was made with: ``defense median``."""
    now = code(spec)
    return sorted(
        name for name, digest in made.items() if digest and now.get(name, digest) != digest
    )


class Made(NamedTuple):
    """A stored run, or one that waits, as the checks need it."""

    spec: Spec
    origin: Origin


def other_data_of(made: Iterable[Made], folder: Path) -> str:
    """How many of the runs have read other data than are there now, and which; empty where none
    has.

    Raises BadInput where data cannot be read.
    """
    judged: dict[tuple[str, str], str] = {}
    count = 0
    for spec, origin in made:
        key = (str(spec.dataset), origin.data)
        if key not in judged:
            judged[key] = other_data(origin.data, spec.dataset, folder)
        count += bool(judged[key])
    reasons = [reason for reason in judged.values() if reason]
    return f"{count} of them: {'; '.join(reasons)}" if reasons else ""


def changed_plugins(made: Iterable[Made]) -> dict[str, int]:
    """Plug-in → how many of the runs were made with other code of the same VERSION."""
    counts: dict[str, int] = {}
    for spec, origin in made:
        for name in other_code(origin.code, spec):
            counts[name] = counts.get(name, 0) + 1
    return dict(sorted(counts.items()))
