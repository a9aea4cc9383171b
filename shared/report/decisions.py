"""Architecture decision records: Markdown -> pages. Raw HTML stays text, and cog's markers are dropped."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml
from markdown_it import MarkdownIt
from markdown_it.token import Token

from shared.errors import ConfigurationError
from shared.report.words import file_name

COG = re.compile(r"<!--\s*\[\[\[cog.*?\]\]\]\s*-->", re.S)
COMMENT = re.compile(r"<!--.*?-->", re.S)
FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.S)
HEADING = re.compile(r"^# +(.+?)\s*#*$", re.M)
NOT_DECISIONS = {"0000-template", "readme", "index"}


@dataclass(frozen=True, slots=True)
class Decision:
    """One record. `body` is HTML made here, safe to print as it is; `page` is its file name."""

    name: str
    title: str
    status: str
    date: str
    page: str
    body: str


def read(folder: Path) -> tuple[Decision, ...]:
    """The decisions of a folder by name; none where the folder is missing."""
    paths = [path for path in sorted(folder.glob("*.md")) if path.stem.lower() not in NOT_DECISIONS]
    pages = {path.name: page_of(path.stem) for path in paths}
    return tuple(_decision(path, pages) for path in paths)


def page_of(stem: str) -> str:
    return file_name("decision", stem)


def _decision(path: Path, pages: dict[str, str]) -> Decision:
    text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
    front, text = _front(path, text)
    text = COMMENT.sub("", COG.sub("", text))
    title = HEADING.search(text)
    return Decision(
        name=path.stem,
        title=_plain(title[1]) if title else path.stem,
        status=_plain(str(front.get("status", ""))),
        date=str(front.get("date", "")),
        page=pages[path.name],
        body=html(text, pages),
    )


def _front(path: Path, text: str) -> tuple[dict[str, Any], str]:
    """MADR's front matter (status, date, deciders) and what follows it."""
    found = FRONT.match(text)
    if not found:
        return {}, text
    try:
        front: object = yaml.safe_load(COMMENT.sub("", found[1]))
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{path} has front matter that is not YAML: {error}") from error
    return front if isinstance(front, dict) else {}, text[found.end() :]


def _plain(markdown: str) -> str:
    return re.sub(r"[`*]", "", markdown).strip()


def html(markdown: str, pages: dict[str, str]) -> str:
    """Safe HTML. Links lead to other decisions or to the web; those into the repository become plain text."""
    renderer = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = renderer.parse(markdown)
    for token in tokens:
        if token.children:
            token.children = list(_linked(token.children, pages))
    rendered: str = renderer.renderer.render(tokens, renderer.options, {})
    # A wide table scrolls in its own box: the page never does.
    rendered = rendered.replace("<table>", '<div class="scroll" tabindex="0" role="group" aria-label="Table"><table>')
    return rendered.replace("</table>", "</table></div>")


def _linked(tokens: Iterable[Token], pages: dict[str, str]) -> Iterable[Token]:
    dropped: list[bool] = []
    for token in tokens:
        if token.type == "link_open":
            target = _target(str(token.attrGet("href") or ""), pages)
            dropped.append(not target)
            token.attrSet("href", target)
            if target.startswith("http"):
                token.attrSet("rel", "noreferrer")
        if token.type not in ("link_open", "link_close") or not dropped[-1]:
            yield token
        if token.type == "link_close":
            dropped.pop()


def _target(href: str, pages: dict[str, str]) -> str:
    parts = urlsplit(href)
    if parts.scheme in ("http", "https"):
        return href
    return pages.get(PurePosixPath(unquote(parts.path)).name, "") if not parts.scheme else ""
