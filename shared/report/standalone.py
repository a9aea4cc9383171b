"""One diagram of the result page as a file of its own, for documents: an SVG that carries its styles."""

import re
from pathlib import Path

from shared.errors import ConfigurationError

DIAGRAM = re.compile(r"<svg[^>]*data-spacetime.*?</svg>", re.DOTALL)
MARGIN = 16


def standalone(page: Path) -> str:
    """The first space-time diagram of a page. Raises ConfigurationError when it has none.

    The page's style sheet goes in whole: light and dark then work in the file as they do on the page.
    """
    found = DIAGRAM.search(page.read_text(encoding="utf-8"))
    if found is None:
        raise ConfigurationError(f"{page} has no space-time diagram: run `make demo` first")
    style = (page.parent / "style.css").read_text(encoding="utf-8")
    svg = re.sub(r' width="[\d.]+" height="[\d.]+" viewBox="([\d. ]+)"', _framed, found[0], count=1)
    paper = '<rect x="-100" y="-100" width="4000" height="4000" style="fill: var(--card)" />'
    return svg.replace(">", f"><style><![CDATA[\n{style}\n]]></style>{paper}", 1) + "\n"


def _framed(match: re.Match[str]) -> str:
    left, top, width, height = map(float, match[1].split())
    box = f"{left - MARGIN:g} {top - MARGIN:g} {width + 2 * MARGIN:g} {height + 2 * MARGIN:g}"
    return f' xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" viewBox="{box}"'
