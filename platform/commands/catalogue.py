"""``backstop list``, ``show``, ``data`` and ``ui``."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backstop.platform import storage
from backstop.platform.commands.output import (
    DONE,
    FAILED,
    open_console,
    print_json,
    readable_store,
    say_interrupted,
)
from backstop.platform.declarations.facts import (
    GIVES,
    KEEPS,
    KNOWS,
    NEEDS,
    TAKES,
    AttackFacts,
    DefenseFacts,
    Facts,
    SearchSpaceFacts,
)
from backstop.platform.declarations.venues import venue_of
from backstop.platform.params import BadInput, nearest

if TYPE_CHECKING:
    from backstop.platform.commands.holdings import Holdings
    from backstop.platform.contract import Data
    from backstop.platform.plugins import Plugin
    from backstop.platform.specs.part import Part

Item = Mapping[str, Any]  # a plug-in as one plain object
SPLIT_KEYS = (  # of a spec: how samples are dealt out
    "clients",
    "alpha",
    "labels_each",
    "size_exponent",
    "input_noise",
    "root_size",
    "seed",
)
SHOWN_FACTS = ("kinds", "knows", "needs", "takes", "gives", "keeps", "repairs", "strength")


def _look_up(group: str, name: str) -> Item:
    """A plug-in as one plain object, with ``error`` where it cannot be used."""
    from backstop.platform import plugins

    try:
        return _as_item(group, plugins.describe(group, name))
    except BadInput as error:
        return {
            "name": name,
            "group": group,
            "error": str(error),
        }


def _as_item(group: str, plugin: Plugin) -> Item:
    parameters = [
        {
            "name": item.name,
            "default": item.default,
            "allowed": item.allowed,
            "text": item.text,
        }
        for item in plugin.parameters.values()
    ]
    return {
        "name": plugin.name,
        "group": group,
        "summary": plugin.summary,
        "version": plugin.version,
        "source": plugin.source,
        "venue": venue_of(plugin.source),
        "parameters": parameters,
        **_facts(plugin.facts),
    }


def _facts(facts: Facts) -> dict[str, Any]:
    """What a plug-in says of itself as plain values."""
    plain: dict[str, Any] = {}
    if not isinstance(facts, SearchSpaceFacts) and facts.kinds:
        plain["kinds"] = list(facts.kinds)
    if isinstance(facts, AttackFacts):
        plain["knows"] = facts.knows
        plain["strength"] = facts.strength
        plain["trigger"] = facts.trigger
        plain["kind"] = _attack_kind(facts)
    if isinstance(facts, DefenseFacts):
        plain["needs"] = [words for need, words in NEEDS.items() if need in facts.needs]
        plain["takes"] = TAKES[facts.takes]
        plain["gives"] = GIVES[facts.gives]
        if facts.keeps:
            plain["keeps"] = f"{KEEPS[facts.keeps]}, each client"
        if facts.repairs:
            plain["repairs"] = "the final model, and does nothing else"
    return plain


def _attack_kind(facts: AttackFacts) -> str:
    if facts.trigger:
        return "trigger"
    return "untargeted" if facts.untargeted else "update"


def _asks(item: Item) -> str:
    """What a plug-in needs or knows, in words."""
    if item.get("needs"):
        return f"needs {', '.join(item['needs'])}"
    if "knows" in item:
        return f"{item['kind']}, knows {KNOWS[item['knows']]}"
    return ""


def list_(options: argparse.Namespace) -> int:
    """``backstop list``: the plug-ins with a line each."""
    from backstop.platform import plugins

    groups = list(plugins.PACKAGES)
    if options.group:
        groups = [options.group.replace("-", "_")]
    listed = {}
    for group in groups:
        listed[group] = [_look_up(group, name) for name in plugins.names(group)]
    for group, name in _given(options.plugin):
        if group in listed:
            listed[group].append(_look_up(group, name))
    if options.json:
        print_json([item for items in listed.values() for item in items])
        return DONE
    for group, items in listed.items():
        open_console().print(_group_table(group, items))
    return DONE


def _given(paths: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Group and name of each loose file. Raises BadInput for one that is no plug-in."""
    from backstop.platform import plugins
    from backstop.platform.laws.groups import group_of

    for path in paths:
        group = group_of(path)
        yield group, plugins.full_name(group, path)


def _group_table(group: str, items: Sequence[Item]) -> Any:
    """One group's plug-ins: name, summary, where it was published, and what it asks for."""
    from rich.table import Table

    table = Table(
        title=group.replace("_", " "),
        title_justify="left",
        title_style="bold",
        box=None,
        show_header=False,
        pad_edge=False,
    )
    table.add_column(no_wrap=True, style="cyan")
    table.add_column()
    table.add_column(no_wrap=True)
    table.add_column(style="dim")
    for item in items:
        name_in_words = item["name"].replace("_", " ").capitalize()
        text = item.get("summary") or item["error"]
        summary = text.removeprefix(f"{name_in_words}: ")
        table.add_row(item["name"], summary, item.get("venue", ""), _asks(item))
    return table


def show(options: argparse.Namespace) -> int:
    """``backstop show``: the data sheet and the parameters of a plug-in."""
    from backstop.platform import loose, plugins

    name = options.name.replace("-", "_")
    group = plugins.owner(name)
    if group is None and (reference := loose.path_of(options.name)):
        from backstop.platform.laws.groups import group_of

        group = group_of(reference)
        name = plugins.full_name(group, reference)
    if group is None:
        known = [name for group in plugins.PACKAGES for name in plugins.names(group)]
        raise BadInput(f"unknown plug-in {options.name!r}; {nearest(name, known)}")
    plugin = plugins.describe(group, name)
    item = _as_item(group, plugin)
    if options.json:
        print_json({**item, "sheet": plugin.sheet})
    else:
        _print_sheet(plugin, item)
    return DONE


def _print_sheet(plugin: Plugin, item: Item) -> None:
    from backstop.platform import plugins

    console = open_console()
    title = f"{plugins.SINGULAR[item['group']]} {plugin.name}, version {plugin.version}"
    console.print(title, style="bold", highlight=False)
    console.print(
        plugin.sheet,
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    for line in _fact_lines(item):
        console.print(
            f"\n{line}",
            markup=False,
            highlight=False,
            end="",
        )
    console.print()
    if item["parameters"]:
        console.print(_parameter_table(item["parameters"]))


def _fact_lines(item: Item) -> Iterator[str]:
    for key in SHOWN_FACTS:
        value = item.get(key)
        if value:
            yield f"{key}: {', '.join(value) if isinstance(value, list) else value}"


def _parameter_table(parameters: Sequence[Item]) -> Any:
    from rich.table import Table

    table = Table(
        box=None,
        header_style="bold",
        pad_edge=False,
    )
    for heading in ("parameter", "default", "allowed", "meaning"):
        table.add_column(heading)
    for item in parameters:
        allowed = item["allowed"].replace("[", "\\[")
        table.add_row(item["name"], str(item["default"]), allowed, item["text"])
    return table


def data(options: argparse.Namespace) -> int:
    """``backstop data``: for every dataset what is there, what is missing and how to get it; for
    one that is there also what is read, and which client holds what. One that is named and not
    there is a failure.
    """
    from backstop.platform.commands import inventory
    from backstop.platform.commands.holdings import holding_lines
    from backstop.platform.intake import readings
    from backstop.platform.training import loading

    folder = loading.data_folder(options.data_dir)
    parts = _datasets(options.name)
    if options.download:
        _download(parts, folder, all_of_them=bool(options.name))
    items = [inventory.look(part, folder) for part in parts]
    reading = held = None
    asked = _split_asked(options)
    if asked and not options.name:
        raise BadInput(f"{asked[0]} is about the clients of one dataset; name it")
    if options.name and items[0]["usable"]:
        loaded = inventory.read_dataset(parts[0], folder)
        reading = loaded.reading
        assert reading is not None
        items[0] |= {"reading": readings.document(reading)}
        if asked or loaded.client is not None:
            held = _held(options, loaded, asked=bool(asked))
            items[0] |= {"split": held}
    width = max(open_console().width, 60)
    if options.json:
        print_json(items)
    elif options.name:
        _print_lines(inventory.sheet_lines(items[0], folder, width))
    else:
        _print_lines(inventory.overview_lines(items, folder, width))
    if reading is not None and not options.json:
        _print_lines(f"    {line}" for line in readings.sheet(reading))
    if held is not None and not options.json:
        _print_lines(f"    {line}" for line in holding_lines(held))
    return FAILED if options.name and not items[0]["usable"] else DONE


def _split_asked(options: argparse.Namespace) -> list[str]:
    """The options that say how the samples are dealt out, those that were given."""
    given = [key for key in SPLIT_KEYS if getattr(options, key) is not None]
    return [f"--{key.replace('_', '-')}" for key in given]


def _held(
    options: argparse.Namespace,
    loaded: Data,
    *,
    asked: bool,
) -> Holdings:
    """The split that is asked for, as a run with these options has it; without any the natural
    clients with all that they have.
    """
    from backstop.platform.commands.holdings import holdings
    from backstop.platform.params import check
    from backstop.platform.specs.part import parse_value
    from backstop.platform.specs.spec import Spec, check_split, scalar_fields

    usual = Spec()
    split = {key: getattr(usual, key) for key in SPLIT_KEYS}
    if loaded.client is not None and options.alpha is None:
        split |= {"alpha": "natural", "clients": None}
    if not asked:
        split["root_size"] = 0
    for key in SPLIT_KEYS:
        if (text := getattr(options, key)) is not None:
            split[key] = check(scalar_fields()[key], parse_value(text), f"--{key}")
    check_split(split)
    return holdings(loaded, **split)


def _datasets(text: str | None) -> list[Part]:
    """The dataset that is asked for, or all. Raises BadInput for one that is not known."""
    from backstop.platform import plugins
    from backstop.platform.specs.part import Part, complete_part, parse_part

    if not text:
        return [Part(name) for name in plugins.names("datasets")]
    part = parse_part(text)
    complete_part(part, "datasets")
    return [part]


def _download(
    parts: Sequence[Part],
    folder: Path,
    *,
    all_of_them: bool,
) -> None:
    """Fetch what is missing; unless it has to be all of them, only what can be fetched."""
    from backstop.platform.commands import inventory

    for part in parts:
        item = inventory.look(part, folder)
        if all_of_them or (item["can_download"] and not item["usable"]):
            inventory.download(part, folder)


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)


def ui(options: argparse.Namespace) -> int:
    """``backstop ui``: MLflow's own UI on the store in use."""
    from backstop.platform.results.tracking.store import is_new
    from backstop.platform.results.tracking.sweeps import mark_interrupted
    from backstop.platform.results.tracking.ui import serve_ui

    store = readable_store(options)
    if not is_new(store):
        say_interrupted(mark_interrupted(store, storage.locate(options.store)))
    return serve_ui(store, options.port)
