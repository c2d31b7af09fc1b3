"""``backstop check``: what a reviewer would ask of somebody's own plug-in."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from backstop.platform.commands.output import DONE, FAILED
from backstop.platform.params import BadInput, nearest

if TYPE_CHECKING:
    from backstop.platform.plugins import Plugin


def check_plugin(options: argparse.Namespace) -> int:
    """``backstop check``: facts, data sheet, example, laws and effect of each plug-in named."""
    lines = [line for subject in _named(options.subject) for line in _check(subject)]
    return FAILED if lines else DONE


class _Subject(NamedTuple):
    """A plug-in that is looked at."""

    group: str
    name: str
    unusable: str = ""  # why its facts or parameters cannot be read


def _named(text: str) -> list[_Subject]:
    """The plug-ins that are meant: a file's, a folder's, a package's, or the one of that name.
    Raises BadInput where there is none.
    """
    from backstop.platform import plugins

    path = Path(text)
    if path.is_dir():
        files = sorted(file for file in path.glob("*.py") if not file.name.startswith("_"))
        if not files:
            raise BadInput(f"folder {text} holds no Python file")
        return [_adopted(str(file)) for file in files]
    if text.endswith(".py"):
        if not path.expanduser().is_file():
            raise BadInput(f"check {text}: there is no such Python file")
        return [_adopted(text)]
    group = plugins.owner(text)
    if group is not None:
        return [_Subject(group, text)]
    packaged = [
        _Subject(group, name)
        for group in plugins.PACKAGES
        for name, origin in plugins.sources(group).items()
        if origin.partition(":")[0].split(".")[0] == text and text != "backstop"
    ]
    if not packaged:
        every = [name for group in plugins.PACKAGES for name in plugins.names(group)]
        raise BadInput(
            f"{text!r} is no Python file, no package with plug-ins and no plug-in;"
            f" {nearest(text, every)}"
        )
    return packaged


def _adopted(path: str) -> _Subject:
    """A file as a plug-in of this process."""
    from backstop.platform import plugins
    from backstop.platform.laws.groups import group_of

    group = group_of(path)
    name = plugins.full_name(group, path)
    try:
        return _Subject(group, plugins.find(group, name).name)
    except BadInput as error:
        return _Subject(group, name, str(error))


def _check(subject: _Subject) -> list[str]:
    """Print what is found; the lines that say what is wrong."""
    from backstop.platform import loose, plugins

    title = f"{plugins.SINGULAR[subject.group]} {loose.short_name(subject.name)}"
    lines = []
    for line in _wrong(subject, title):
        print(f"  ✗ {line}", flush=True)
        lines.append(line)
    print(f"{title}: {_verdict(len(lines))}")
    return lines


def _verdict(faults: int) -> str:
    """The last line, in words."""
    if not faults:
        return "nothing is to be mended."
    if faults == 1:
        return "1 fault is to be mended; the line that begins with ✗ names it."
    return f"{faults} faults are to be mended; the lines that begin with ✗ name them."


def _wrong(subject: _Subject, title: str) -> Iterator[str]:
    """What is to be mended, a line each; what else is found is printed on the way."""
    from backstop.platform import plugins
    from backstop.platform.laws import sheet

    if subject.unusable:
        print(title)
        yield f"facts: {subject.unusable}"
        return
    plugin = plugins.find(subject.group, subject.name)
    print(f"{title}: {plugin.summary or '(no data sheet)'}")
    for line in _told(plugin):
        print(f"  {line}")
    yield from sheet.lacking(plugin)
    yield from sheet.failing_examples(plugin)
    if subject.group in ("attacks", "defenses"):
        yield from _broken_laws(subject)


def _told(plugin: Plugin) -> Iterator[str]:
    """What the plug-in says of itself."""
    from dataclasses import asdict

    facts = ", ".join(f"{name.upper()} = {value!r}" for name, value in asdict(plugin.facts).items())
    yield f"facts: {facts}"
    for name, parameter in plugin.parameters.items():
        yield f"parameter {name}: {parameter.allowed} (default: {parameter.default})"


def _broken_laws(subject: _Subject) -> Iterator[str]:
    """The laws that an attack or a defense breaks, last that it has an effect, which is printed."""
    from backstop.platform import plugins
    from backstop.platform.laws import attacks, defenses
    from backstop.platform.laws.arena import attack_effect, defense_effect
    from backstop.platform.laws.breach import breaches

    if subject.group == "attacks":
        laws, effect = attacks.ATTACK_LAWS, attack_effect
        exempt = plugins.attack_facts(subject.name).exempt
    else:
        laws, effect = defenses.DEFENSE_LAWS, defense_effect
        exempt = plugins.defense_facts(subject.name).exempt
    for title in exempt:
        print(f"  exempt from: {title}")

    def shown(name: str) -> None:
        seen = effect(name)
        for line in seen.words:
            print(f"  {line}", flush=True)
        if seen.breach:
            raise BadInput(seen.breach)

    yield from breaches(subject.name, {**laws, "effect": shown}, exempt)
