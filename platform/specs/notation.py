"""The text form of plug-ins with parameters: its grammar, its reader and its writer.

    chain   = [stage {"+" stage}]
    stage   = name ["(" [key "=" value {"," key "=" value}] ")"]
            | "(" chain ")" for the first, "(" stage ")" for the others
    name    = letters, digits and _, no digit first; a word that Python reserves is no exception;
              or of a loose file: its path (mine.py, ../nets.py:Small), quoted where it holds
              blanks, + = , or parentheses; or its name in a spec (mine@3f2a9c1be04d)
    value   = quoted | bare
    quoted  = '…' or "…", in which a backslash starts an escape as in Python; r'…': no escapes
    bare    = anything up to the next comma or closing parenthesis, without blanks, = and quotes;
              pairs of brackets may stand in it

A bare value is a number if it looks like one, one of :data:`WORDS`, else text as it stands:
``mine.csv``, ``../data/2019-07.csv``, ``class``, ``007``. A quoted value is always text. Blanks
around names, values and signs mean nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple, NoReturn

from backstop.platform import loose
from backstop.platform.params import BadInput

Value = bool | int | float | str | None

WORDS: Mapping[str, Value] = {
    "none": None,
    "None": None,
    "true": True,
    "True": True,
    "false": False,
    "False": False,
}
# between the chains of several adversaries; as a part of its own, so that an attack stays one tuple
NEXT_ADVERSARY = "|"
EXAMPLE = "badnets(size=3)+model_replacement(strength=5)"
QUOTED = re.compile(r"""[rRuU]?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""", re.DOTALL)
ESCAPE = re.compile(
    r"""\\(?:[\n'"\\abfnrtv]|[0-3]?[0-7]{1,2}|N\{[^}]*\}"""
    r"""|x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U00(?:0[0-9a-fA-F]|10)[0-9a-fA-F]{4})"""
)
NAME = re.compile(r"[^\W\d]\w*")
LOOSE_PATH = re.compile(r"""[^\s()+,='"]+\.py(?::[^\W\d]\w*)?(?![^\s()+,='"])""")
LOOSE_NAME = re.compile(r"[^\W\d]\w*(?::[^\W\d]\w*)?(?:@[0-9a-f]+)?")
NEXT_KEY = re.compile(r"\s([^\W\d]\w*)\s*=(?!=)")
FRACTION = re.compile(
    r"[+-]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][+-]?[0-9][0-9_]*)?", re.ASCII
)
SIGN_APART = re.compile(r"^([+-])\s+")
STOPS = re.compile(r"""[\s,()\[\]{}=+'"]""")  # what text that is written without quotes is free of
LOOSE = re.compile(r"""(?<![-+*/])\s+(?![-+*/\s])|[='"]""")  # what a bare value is free of
CLOSING = {
    "(": ")",
    "[": "]",
    "{": "}",
}


def read(text: str) -> Value:
    """A value from its text form.

    >>> read("-1e3"), read("class"), read("'1e3'"), read("007"), read("none")
    (-1000.0, 'class', '1e3', '007', None)
    """
    if text in WORDS:
        return WORDS[text]
    if (unquoted := _unquoted(text)) is not None:
        return unquoted
    if _wrapped(text):
        inner = text[1:-1].strip()
        return text if read(inner) == inner else read(inner)
    value = _number(SIGN_APART.sub(r"\1", text))
    return text if value is None else value


def write(value: Value) -> str:
    """The text form that :func:`read` takes back to the same value; text is quoted where it would
    not be read as it stands.

    >>> write("mine.csv"), write("1e3"), write("two words"), write(0.5), write(None)
    ('mine.csv', "'1e3'", "'two words'", '0.5', 'None')
    """
    if isinstance(value, str):
        return value if _stands_bare(value) else repr(value)
    if isinstance(value, float) and value in (float("inf"), -float("inf")):
        return "1e999" if value > 0 else "-1e999"  # the words would be text
    return str(value)


def _stands_bare(text: str) -> bool:
    """Whether text is read back as it stands, and is not one of :data:`WORDS` in any case."""
    if not text or not text.isprintable() or STOPS.search(text):
        return False
    return read(text) == text and text.lower() not in ("none", "true", "false")


def write_name(name: str) -> str:
    """The text form of a plug-in's name: a path is quoted where it would not be read as it stands.

    >>> write_name("krum"), write_name("a b.py")
    ('krum', "'a b.py'")
    """
    whole = any(form.fullmatch(name) for form in (LOOSE_NAME, LOOSE_PATH))
    return name if whole else repr(name)


def stages(text: str) -> tuple[tuple[str, dict[str, Value]], ...]:
    """The stages of a chain, each a name and its parameters. BadInput for anything else, with the
    text as it should stand where quotes are all that is missing.

    >>> stages("table(path=mine.csv, label=class)")
    (('table', {'path': 'mine.csv', 'label': 'class'}),)
    >>> stages("f(x=a b)")
    Traceback (most recent call last):
    backstop.platform.params.BadInput: "f(x=a b)": quote the value of x: "f(x='a b')"
    """
    reader = _Reader(text)
    if not text.strip():
        reader.refuse("it is empty")
    chain = tuple(reader.chains())
    reader.blanks()
    if reader.position < len(text):
        reader.refuse()
    if reader.loose:
        reader.refuse_loose()
    return chain


class _Loose(NamedTuple):
    """A value that needs quotes, and where it stands."""

    key: str
    start: int
    stop: int


class _Reader:
    """Walks along the text; ``position`` is where it is."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.loose: list[_Loose] = []

    def refuse(self, reason: str = "") -> NoReturn:
        """Say what the form is, and why or where the text leaves it."""
        form = f"of the form name(key=value)+name; example: {EXAMPLE}"
        raise BadInput(f"{self.text!r} is not {form}; {reason or self.departure()}")

    def departure(self) -> str:
        """Where the text leaves the form."""
        rest = self.text[self.position :].strip()
        if not rest:
            return "it breaks off"
        if ".py" in self.text:
            return (
                f"quote a path that holds blanks, + or commas; it leaves that form at {rest[:40]!r}"
            )
        return f"it leaves that form at {rest[:40]!r}"

    def refuse_loose(self) -> NoReturn:
        """Say which values need quotes, and show the text with them."""
        keys = " and ".join(dict.fromkeys(loose.key for loose in self.loose))
        mended = _shown(self.with_quotes())
        raise BadInput(f"{_shown(self.text)}: quote the value of {keys}: {mended}")

    def with_quotes(self) -> str:
        """The text with quotes around the values that need them."""
        quoted = ""
        done = 0
        for _, start, stop in self.loose:
            quoted += self.text[done:start]
            quoted += repr(self.text[start:stop])
            done = stop
        return quoted + self.text[done:]

    def blanks(self) -> None:
        while self.text[self.position : self.position + 1].isspace():
            self.position += 1

    def take(self, sign: str) -> bool:
        """Whether the sign comes next, blanks aside; it is passed if it does."""
        self.blanks()
        taken = self.text.startswith(sign, self.position)
        self.position += len(sign) * taken
        return taken

    def chains(self) -> Iterator[tuple[str, dict[str, Value]]]:
        """The stages of one chain or of several, a sign between each two of these."""
        yield from self.chain()
        while self.take(NEXT_ADVERSARY):
            yield NEXT_ADVERSARY, {}
            yield from self.chain()

    def chain(self) -> Iterator[tuple[str, dict[str, Value]]]:
        yield from self.stage(first=True)
        while self.take("+"):
            yield from self.stage(first=False)

    def stage(self, *, first: bool) -> list[tuple[str, dict[str, Value]]]:
        if self.take("("):
            inner = list(self.chain()) if first else self.stage(first=False)
            if not self.take(")"):
                self.refuse()
            return inner
        name = self.plugin()
        parameters = self.parameters() if self.take("(") else {}
        return [(name, parameters)]

    def plugin(self) -> str:
        """The name of a plug-in, the path of a file among others."""
        self.blanks()
        forms = (QUOTED, LOOSE_PATH, LOOSE_NAME)
        match = next(filter(None, (form.match(self.text, self.position) for form in forms)), None)
        if match is None:
            self.refuse()
        quoted = _unquoted(match[0])
        if quoted is not None and not loose.is_path(quoted):
            self.refuse("only the path of a .py file stands in quotation marks")
        self.position = match.end()
        return match[0] if quoted is None else quoted

    def name(self) -> str:
        self.blanks()
        match = NAME.match(self.text, self.position)
        if match is None:
            self.refuse()
        self.position = match.end()
        return match[0]

    def parameters(self) -> dict[str, Value]:
        """What stands between the parentheses, the closing one included."""
        given: dict[str, Value] = {}
        while not self.take(")"):
            start = self.position
            key = self.name()
            if not self.take("="):
                self.refuse(f"{self.text[start : start + 40]!r} does not start with key=value")
            if key in given:
                self.refuse(f"{key} stands twice")
            given[key] = self.value(key)
            self.blanks()
            if self.text[self.position : self.position + 1] != ")" and not self.take(","):
                self.refuse()
        return given

    def value(self, key: str) -> Value:
        self.blanks()
        start, stop = self.position, self.end()
        stop = start + len(self.text[start:stop].rstrip())
        self.position = stop
        while _wrapped(self.text[start:stop]):  # parentheses around one value mean nothing
            start, stop = start + 1, stop - 1
        given = self.text[start:stop].strip()
        if _needs_quotes(given):
            if following := NEXT_KEY.search(_outside(given)):
                self.refuse(f"a comma is missing before {following[1]}=")
            self.loose.append(_Loose(key, start, stop))
        return read(given)

    def end(self) -> int:
        """Where the comma or parenthesis stands that ends the value, outside quotes and brackets
        where those are closed.
        """
        position = self.position
        open_: list[str] = []
        while open_ or self.text[position : position + 1] not in {",", ")"}:
            if position >= len(self.text):
                self.refuse("a parenthesis, bracket or quotation mark is not closed")
            if quoted := _quoted(self.text, position):
                position = quoted.end()
                continue
            _follow(self.text[position], open_)
            position += 1
        return position


def _quoted(text: str, position: int) -> re.Match[str] | None:
    """The quoted text whose quotation mark stands at a position; None where none is closed."""
    if text[position] not in "'\"":
        return None
    return QUOTED.match(text, position)


def _follow(sign: str, open_: list[str]) -> None:
    """Keep account of what closes the brackets that are open, the innermost last."""
    if sign in CLOSING:
        open_.append(CLOSING[sign])
    elif open_ and sign == open_[-1]:
        open_.pop()


def _needs_quotes(given: str) -> bool:
    """Whether a value is empty, or holds what no bare value may."""
    if _unquoted(given) is not None:
        return False
    return not given or LOOSE.search(_outside(given)) is not None


def _unquoted(text: str) -> str | None:
    """The text between quotation marks, of several such texts in a row joined; None where there is
    anything else.
    """
    unquoted, position = "", 0
    while position < len(text):
        match = QUOTED.match(text, position)
        if match is None:
            return None
        body = match[0].lstrip("rRuU")[1:-1]
        unquoted += body if match[0][0] in "rR" else ESCAPE.sub(_character, body)
        position = match.end() + len(text[match.end() :]) - len(text[match.end() :].lstrip())
    return unquoted if position else None


def _character(escape: re.Match[str]) -> str:
    """What an escape stands for; itself where it stands for nothing."""
    try:
        return str(ast.literal_eval(f'"{escape[0]}"'))
    except (SyntaxError, ValueError):
        return escape[0]


def _number(text: str) -> int | float | None:
    """The number as Python writes it, or None: ``007`` is none."""
    if not text.isascii() or text != text.strip():
        return None
    try:
        return int(text, 0)
    except ValueError:
        pass
    if not FRACTION.fullmatch(text) or not set(text) & set(".eE"):
        return None
    try:
        return float(text)
    except ValueError:
        return None


def _wrapped(text: str) -> bool:
    """Whether the text is one value in parentheses."""
    inner = QUOTED.sub("''", text[1:-1])
    return (
        text[:1] == "("
        and text[-1:] == ")"
        and not set(_outside(inner)) & set(",()")
        and bool(inner.strip())
    )


def _outside(text: str) -> str:
    """The text without what stands in its pairs of brackets, the outermost brackets included."""
    kept = ""
    open_: list[str] = []
    position = 0
    while position < len(text):
        sign = text[position]
        quoted = _quoted(text, position) if open_ else None
        if quoted:
            position = quoted.end()
            continue
        if not open_ and sign not in CLOSING:
            kept += sign
        _follow(sign, open_)
        position += 1
    return kept


def _shown(text: str) -> str:
    """In double quotation marks where that needs no escapes, as the text holds single ones."""
    needs_escapes = '"' in text or "\\" in text or not text.isprintable()
    return repr(text) if needs_escapes else f'"{text}"'
