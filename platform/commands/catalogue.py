"""``backstop list``, ``show``, ``data`` and ``ui``."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from backstop.platform.commands.output import (
    DONE,
    open_console,
    print_json,
    readable_store,
    say_interrupted,
)
from backstop.platform.params import BadInput, nearest


def _facts(group: str, name: str) -> dict[str, Any]:
    """A plug-in as one plain object; a broken file is listed with its error."""
    from backstop.platform import plugins

    try:
        plugin = plugins.find(group, name)
    except BadInput as error:
        return {"name": name, "group": group, "error": str(error)}
    parameters = [
        {"name": item.name, "default": item.default, "allowed": item.allowed, "text": item.text}
        for item in plugin.parameters.values()
    ]
    facts = {
        key.lower(): list(fact) if isinstance(fact, tuple) else fact
        for key, fact in plugin.facts.items()
        if key in ("KINDS", "KNOWS", "STRENGTH", "TRIGGER")
    }
    if group == "attacks":
        facts["kind"] = (
            "trigger"
            if plugin.facts["TRIGGER"]
            else "untargeted"
            if plugin.facts.get("UNTARGETED")
            else "update"
        )
    if group == "defenses":
        facts["needs"] = plugins.needs([name])
        facts["takes"] = plugins.TAKES[plugin.facts.get("TAKES", "rows")]
        facts["gives"] = plugins.GIVES[plugin.facts.get("GIVES", "rows")]
    return {
        "name": name,
        "group": group,
        "summary": plugin.summary,
        "version": plugin.version,
        "source": plugin.source,
        "parameters": parameters,
        **facts,
    }


def _asks(item: Mapping[str, Any]) -> str:
    """What a plug-in needs or knows, in words."""
    from backstop.platform import plugins

    if item.get("needs"):
        return f"needs {', '.join(item['needs'])}"
    return f"{item['kind']}, knows {plugins.KNOWS[item['knows']]}" if "knows" in item else ""


def list_(options: argparse.Namespace) -> int:
    """``backstop list``: the plug-ins with a line each."""
    from rich.table import Table

    from backstop.platform import plugins

    groups = [options.group.replace("-", "_")] if options.group else list(plugins.PACKAGES)
    found = [_facts(group, name) for group in groups for name in plugins.names(group)]
    if options.json:
        print_json(found)
        return DONE
    for group in groups:
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
        table.add_column(style="dim")
        for item in found:
            if item["group"] == group:
                summary = (item.get("summary") or item["error"]).removeprefix(
                    f"{item['name'].replace('_', ' ').capitalize()}: "
                )
                table.add_row(item["name"], summary, _asks(item))
        open_console().print(table)
    return DONE


def show(options: argparse.Namespace) -> int:
    """``backstop show``: the data sheet and the parameters of a plug-in."""
    from rich.table import Table

    from backstop.platform import plugins

    wanted = options.name.replace("-", "_")
    group = plugins.owner(wanted)
    if group is None:
        known = [name for group in plugins.PACKAGES for name in plugins.names(group)]
        raise BadInput(f"unknown plug-in {options.name!r}; {nearest(wanted, known)}")
    facts, plugin = _facts(group, wanted), plugins.find(group, wanted)
    if options.json:
        print_json({**facts, "sheet": plugin.sheet})
        return DONE
    console = open_console()
    console.print(
        f"{plugins.SINGULAR[group]} {wanted}, version {plugin.version}",
        style="bold",
        highlight=False,
    )
    console.print(plugin.sheet, markup=False, highlight=False, soft_wrap=True)
    for key in ("kinds", "knows", "needs", "takes", "gives", "strength"):
        if facts.get(key):
            given = facts[key]
            console.print(
                f"\n{key}: {', '.join(given) if isinstance(given, list) else given}",
                markup=False,
                highlight=False,
                end="",
            )
    console.print()
    if facts["parameters"]:
        table = Table(box=None, header_style="bold", pad_edge=False)
        for name in ("parameter", "default", "allowed", "meaning"):
            table.add_column(name)
        for item in facts["parameters"]:
            table.add_row(
                item["name"],
                str(item["default"]),
                item["allowed"].replace("[", "\\["),
                item["text"],
            )
        console.print(table)
    return DONE


def data(options: argparse.Namespace) -> int:
    """``backstop data``: for every dataset what is there, what is missing and how to get it; for
    one that is there also what is read.
    """
    from backstop.platform import plugins
    from backstop.platform.commands import inventory
    from backstop.platform.intake import readings
    from backstop.platform.specs.part import Part, complete_part, parse_part
    from backstop.platform.training import loading

    folder = loading.data_folder(options.data_dir)
    if options.name:
        named = [parse_part(options.name)]
        complete_part(named[0], "datasets")
    else:
        named = list(map(Part, plugins.names("datasets")))
    found = [inventory.look(part, folder) for part in named]
    if options.download:
        for part, item in zip(named, found, strict=True):
            # without a name: what can be fetched
            if options.name or (item["can_download"] and not item["usable"]):
                inventory.download(part, folder)
        found = [inventory.look(part, folder) for part in named]
    whole = inventory.read(named[0], folder) if options.name and found[0]["usable"] else None
    if whole is not None:
        found[0] = {**found[0], "reading": readings.document(whole)}
    if options.json:
        print_json(found)
        return DONE
    width = max(open_console().width, 60)
    for line in (
        inventory.sheet(found[0], folder, width)
        if options.name
        else inventory.overview(found, folder, width)
    ):
        print(line)
    for line in () if whole is None else readings.sheet(whole):
        print(f"    {line}")
    return DONE


def ui(options: argparse.Namespace) -> int:
    """``backstop ui``: MLflow's own UI on the store in use."""
    from backstop.platform.results.store import is_new, serve_ui
    from backstop.platform.results.sweeps import mark_interrupted

    store = readable_store(options)
    if not is_new(store):
        say_interrupted(mark_interrupted(store, Path(options.store)))
    return serve_ui(store, options.port)
