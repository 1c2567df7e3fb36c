"""The English of docstrings and documents: named subjects, imperative first lines, one term for one thing.

A message names file, line and word. The bars are rates per 1,000 words, so that a rare exception is no failure.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.environment import ROOT
from tests.support.source_code import syntax_tree

ROOMS = ("domain", "ledger", "projections", "consumers", "dashboard", "app", "config", "resolution_ledger")
PRONOUNS = {
    *("what", "who", "whom", "whose", "whoever", "whatever"),
    *("somebody", "nobody", "anybody", "everybody", "someone", "anyone", "everyone"),
}
DOCSTRING_BAR = 2.0  # pronouns per 1,000 words of docstrings
PAGE_BAR = 3.0  # pronouns per 1,000 words of a page
QUESTION = re.compile(r"(?:What|Who|Whom|Whose|Whether|Where|Why|How)\b")
NOUNS = {"dealing", "hashing", "keyring", "linting", "mapping", "matching", "parsing", "pending", "reading", "ring"}
"""The only last words of module names in -ing: nouns, and an adjective of the field."""


class Word(NamedTuple):
    """A word of prose and its place."""

    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        """Return `file:line: word`."""
        return f"{self.path.relative_to(ROOT)}:{self.line}: {self.text}"


class Docstring(NamedTuple):
    """A docstring and the line on which it begins."""

    path: Path
    line: int
    text: str

    def words(self) -> Iterator[Word]:
        """Yield the words with their lines."""
        for offset, line in enumerate(self.text.splitlines()):
            for word in re.findall(r"[A-Za-z'-]+", line):
                yield Word(self.path, self.line + offset, word.lower())


def docstrings(room: str) -> Iterator[Docstring]:
    for path in sorted((ROOT / room).rglob("*.py")):
        for node in ast.walk(syntax_tree(path)):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
                text := ast.get_docstring(node, clean=False)
            ):
                yield Docstring(path, node.body[0].lineno, text)


def prose_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a page with their numbers, without code and addresses of links."""
    fenced = False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif not fenced:
            yield number, re.sub(r"`[^`]*`|\]\([^)]*\)", " ", line)


def page_words(path: Path) -> Iterator[Word]:
    """Yield the words of a page outside of its code."""
    for number, line in prose_lines(path):
        for word in re.findall(r"[A-Za-z'-]+", line):
            yield Word(path, number, word.lower())


def pages() -> list[Path]:
    return [p for p in [*ROOT.glob("*.md"), *sorted((ROOT / "docs").rglob("*.md"))] if p.name != "CHANGELOG.md"]


def synonyms() -> Iterator[tuple[re.Pattern[str], str]]:
    """Yield the words that documents do not use, each with the term to write, as the glossary lists them."""
    table = (ROOT / "docs" / "glossary.md").read_text().partition("## Words that the documents do not use")[2]
    rows = re.findall(r"^\| (?!do not)([^|]+) \| ([^|]+) \|$", table.partition("\n## ")[0], re.MULTILINE)
    for words, term in rows:
        for word in words.split(", "):
            part = term.removesuffix(word) if term.endswith(word) else ""
            not_in_term = f"(?<!{part})" if part else ""
            yield re.compile(rf"{not_in_term}(?<![\w-]){word}s?(?![\w-])", re.IGNORECASE), term


def check_rate(words: list[Word], bar: float, name: str) -> None:
    found = [word for word in words if word.text in PRONOUNS]
    rate = 1000 * len(found) / max(1, len(words))
    listed = "\n".join(str(word) for word in found[:60])
    assert rate < bar, f"{name}: {rate:.1f} per 1,000 words, allowed is below {bar}; name the subject:\n{listed}"


@pytest.mark.parametrize("room", ROOMS)
def test_docstrings_name_their_subjects(room: str) -> None:
    words = [word for docstring in docstrings(room) for word in docstring.words()]
    check_rate(words, DOCSTRING_BAR, room)


@pytest.mark.parametrize("room", ROOMS)
def test_a_docstring_begins_with_no_question(room: str) -> None:
    """An imperative verb for a function, a noun for a class or a module."""
    found = [
        f"{d.path.relative_to(ROOT)}:{d.line}: {d.text.split()[0]}" for d in docstrings(room) if QUESTION.match(d.text)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_name_their_subjects(path: Path) -> None:
    check_rate(list(page_words(path)), PAGE_BAR, str(path.relative_to(ROOT)))


@pytest.mark.parametrize("room", ROOMS)
def test_docstrings_use_one_term_for_one_thing(room: str) -> None:
    found = [
        f"{docstring.path.relative_to(ROOT)}:{docstring.line}: {match[0]}; write {term}"
        for docstring in docstrings(room)
        for pattern, term in synonyms()
        for match in pattern.finditer(re.sub(r"`+[^`]*`+", " ", docstring.text))
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_use_one_term_for_one_thing(path: Path) -> None:
    if path.relative_to(ROOT).as_posix() == "docs/glossary.md":  # it lists the words
        return
    found = [
        f"{path.relative_to(ROOT)}:{number}: {match[0]}; write {term}"
        for number, line in prose_lines(path)
        for pattern, term in synonyms()
        for match in pattern.finditer(line)
    ]
    assert not found, "\n".join(found)


def test_modules_are_named_by_nouns() -> None:
    found = [path for room in ROOMS for path in (ROOT / room).rglob("*ing.py") if path.stem.split("_")[-1] not in NOUNS]
    assert not found, "name the thing, not the activity: " + ", ".join(str(path.relative_to(ROOT)) for path in found)
