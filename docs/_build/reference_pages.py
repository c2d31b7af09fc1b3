"""The reference: what may be imported, with signatures and docstrings as they stand."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from functools import lru_cache
from importlib import import_module
from typing import Any, ForwardRef

from prose import markdown

import backstop

MODULES = {  # what a plug-in or a search space imports, by its page
    "contract": "backstop.platform.contract",
    "params": "backstop.platform.params",
    "robust": "backstop.platform.robust",
    "examples": "backstop.platform.examples",
}
MARKS: Mapping[object, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
PLAIN = {"count", "index"}  # what every tuple has


@lru_cache
def reference_pages() -> dict[str, str]:
    """Page of the site → its Markdown."""
    pages = {"reference/index.md": _package_page()}
    for page, module in MODULES.items():
        pages[f"reference/{page}.md"] = _module_page(module)
    return pages


def _package_page() -> str:
    names = [name for name in dir(backstop) if not name.startswith("_") and name in backstop._HOMES]  # noqa: SLF001
    head = [
        "# backstop",
        "What a notebook or a script imports. `import backstop` imports nothing else: a name is"
        " imported when it is first used. The modules that plug-ins import have pages of their"
        " own: " + ", ".join(f"[`{module}`]({page}.md)" for page, module in MODULES.items()) + ".",
    ]
    entries = [_entry(name, getattr(backstop, name)) for name in sorted(names)]
    return "\n\n".join([*head, *entries]) + "\n"


def _module_page(name: str) -> str:
    module = import_module(name)
    entries = [_entry(key, value) for key, value in _own(module)]
    head = [f"# {name.removeprefix('backstop.platform.')}", f"`{name}`"]
    return "\n\n".join([*head, markdown(inspect.getdoc(module) or ""), *entries]) + "\n"


def _own(module: Any) -> Iterator[tuple[str, Any]]:
    """The public functions and classes that a module defines, in the order of the file."""
    for key, value in vars(module).items():
        if key.startswith("_") or not (inspect.isclass(value) or inspect.isfunction(value)):
            continue
        if value.__module__ == module.__name__:
            yield key, value


def _entry(name: str, value: Any) -> str:
    blocks = [f"## {name}", f"```python\n{_signature(name, value)}\n```"]
    if inspect.isclass(value):
        blocks += [markdown(_own_doc(value)), *_methods(value)]
    else:
        blocks.append(markdown(inspect.getdoc(value) or ""))
    return "\n\n".join(block for block in blocks if block)


def _own_doc(kind: type) -> str:
    """A class's docstring; none where a dataclass or a tuple has made one up."""
    text = kind.__doc__ or ""
    return "" if text.startswith(f"{kind.__name__}(") else inspect.cleandoc(text)


def _methods(kind: type) -> Iterator[str]:
    for key, value in vars(kind).items():
        function = value.fget if isinstance(value, property) else value
        made_up = key.startswith("_") or key in PLAIN or not inspect.isfunction(function)
        if made_up or not inspect.getdoc(function):
            continue
        form = f".{key}" if isinstance(value, property) else _signature(f".{key}", function)
        yield (
            f"**`{form.partition(chr(10))[0]}`**" if "\n" not in form else f"```python\n{form}\n```"
        )
        yield markdown(inspect.getdoc(function) or "")


def _signature(name: str, value: Any) -> str:
    """The call as one would write it, a parameter on each line where it is long."""
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return name
    parameters = [_text(item) for item in signature.parameters.values() if item.name != "self"]
    gives = "" if inspect.isclass(value) else _gives(signature)
    keyword = inspect.Parameter.KEYWORD_ONLY
    listed = list(signature.parameters.values())
    first = next((i for i, item in enumerate(listed) if item.kind is keyword), None)
    if first is not None:
        skipped = sum(item.name == "self" for item in listed)
        parameters.insert(first - skipped, "*")
    line = f"{name}({', '.join(parameters)}){gives}"
    if len(line) <= 80:
        return line
    return f"{name}(\n    " + ",\n    ".join(parameters) + f",\n){gives}"


def _text(parameter: inspect.Parameter) -> str:
    text = MARKS.get(parameter.kind, "") + parameter.name
    if parameter.annotation is not parameter.empty:
        text += f": {_annotation(parameter.annotation)}"
    if parameter.default is not parameter.empty:
        text += f" = {_default(parameter.default)}"
    return text


def _annotation(annotation: object) -> str:
    if isinstance(annotation, ForwardRef):
        return str(annotation.__forward_arg__)
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _default(value: object) -> str:
    """A default as a reader writes it; a function by its name, never by its address, and dots for
    what is made anew with each call.
    """
    if "<factory>" in repr(value):
        return "…"
    return getattr(value, "__name__", None) or repr(value)


def _gives(signature: inspect.Signature) -> str:
    if signature.return_annotation is signature.empty:
        return ""
    return f" -> {_annotation(signature.return_annotation)}"
