"""Tables and lines for the terminal."""

from typing import Any

import rich.console
from rich.text import Text

from sdx.printable import escaped


class Console(rich.console.Console):
    """Rich's, on which a text that others wrote, such as a model, can do nothing but be read."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(escaped(text), **options)
