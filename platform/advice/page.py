"""The answer as a page to hand to somebody who was not there: one file, without a script, in the
style of the leaderboard's.
"""

from __future__ import annotations

from pathlib import Path

import jinja2

from backstop.platform.advice import words
from backstop.platform.advice.answer import Advice
from backstop.platform.results.report import page as board_page

TEMPLATES = Path(__file__).parent


def advice_page(answer: Advice) -> str:
    """The whole page. All that comes from an answer is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([TEMPLATES, board_page.HERE]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("advice.html").render(answer=answer, words=words)
