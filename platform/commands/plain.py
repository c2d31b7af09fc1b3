"""Text for a terminal or a pipe that cannot carry every character: ``93.1 ± 0.5 → α`` is then
``93.1 +/- 0.5 -> alpha``.
"""

from __future__ import annotations

import codecs
import unicodedata
from io import TextIOWrapper

HANDLER = "backstop.plain"  # the name of the error handler among Python's codecs
# In a column of a table a sign takes one place, so what stands for it there takes one as well.
SIGNS = {
    "×": "x", "·": "*", "–": "-", "—": "-", "−": "-", "±": "+/-", "→": "->", "←": "<-",
    "↑": "^", "…": "...",
    "≤": "<=", "≥": ">=", "≠": "!=", "≈": "~=", "∝": "~", "∈": "in", "∩": "&", "∪": "|", "∅": "{}",
    "‖": "||", "√": "sqrt ", "∛": "cbrt ",
    "∂": "d", "∇": "grad ", "∞": "inf", "∑": "Sum ", "∏": "Prod ",
    "⊙": "*", "∗": "*", "∘": "o", "⊕": "(+)", "⟨": "<", "⟩": ">",
    "⌊": "floor(", "⌋": ")", "⌈": "ceil(", "⌉": ")",
    "†": "+", "‡": "++", "§": "$", "¶": "@",
    "½": "1/2", "•": "*", "├": "|", "─": "-",
    "ß": "ss", "°": " deg", "✓": "+", "✗": "-", "’": "'", "‘": "'", "“": '"', "”": '"',
    "\N{NO-BREAK SPACE}": " ",
}  # fmt: skip


def plain(text: str, following: str = "") -> str:
    r"""The text in ASCII: signs in words, letters without their accents; what has no likeness as
    Python escapes it.

    >>> plain("κ × ‖ū₂‖² ≤ 10⁻¹²βn … é")
    'kappa x ||u2||^2 <= 10^-12beta n ... e'
    >>> plain("雪")
    '\\u96ea'
    """
    followers = text[1:] + following[:1] + " "
    pieces = []
    was_raised = False
    for character, follower in zip(text, followers, strict=False):
        raised = _is_raised(character)
        if raised and not was_raised:
            pieces.append("^")
        pieces.append(_likeness(character))
        if _greek(character) and follower.isalnum():
            pieces.append(" ")
        was_raised = raised
    return "".join(pieces)


def _is_raised(character: str) -> bool:
    """Whether it is a superscript."""
    decomposition = unicodedata.decomposition(character)
    return decomposition.startswith("<super>")


def _likeness(character: str) -> str:
    if character.isascii():
        return character
    if character in SIGNS:
        return SIGNS[character]
    if letter := _greek(character):
        return letter
    if unicodedata.combining(character):
        return ""
    parts = unicodedata.normalize("NFKD", character)
    if parts == character:
        return _escaped(character)
    likeness = "".join(map(_likeness, parts))
    if "\\" in likeness:
        return _escaped(character)
    return likeness


def _escaped(character: str) -> str:
    """The character as Python escapes it."""
    escape = character.encode("ascii", "backslashreplace")
    return escape.decode("ascii")


def _greek(character: str) -> str:
    """The name of a Greek letter; empty for other characters."""
    name = unicodedata.name(character, "")
    if not name.startswith("GREEK") or " LETTER " not in name:
        return ""
    without_accents, _, _ = name.partition(" WITH ")
    letter = without_accents.split()[-1]
    if letter == "LAMDA":
        letter = "LAMBDA"
    if character.isupper():
        return letter.capitalize()
    return letter.lower()


def _replace(error: UnicodeError) -> tuple[str, int]:
    """The handler: what a codec cannot encode is written plainly."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text, end = error.object, error.end
    lacking = text[error.start : end]
    following = text[end : end + 1]
    return plain(lacking, following), end


codecs.register_error(HANDLER, _replace)


def settle(stream: object) -> None:
    """Let a stream of text write plainly what its encoding lacks, in place of raising
    UnicodeEncodeError.
    """
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors=HANDLER)


def carries(stream: object, text: str) -> bool:
    """Whether the stream's encoding has every character of the text."""
    try:
        text.encode(getattr(stream, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True
