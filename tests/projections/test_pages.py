"""Pages of lists: their rows are the list's, none twice and none missing, while rows arrive and change."""

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from projections.engine.pages import PageRequest, by_key, cursor_of, key_of, page_rows
from projections.engine.row_cache import dict_rows
from projections.engine.sqlite_store import memory_engine
from projections.engine.temporal_tables import Replaced, as_of, as_of_by_key, past_of

metadata = sa.MetaData()
things = sa.Table(
    "things",
    metadata,
    sa.Column("thing_id", sa.Text, primary_key=True),
    sa.Column("position", sa.BigInteger, index=True),
    sa.Column("kind", sa.Text),
    sa.Column("time", sa.Text),
    sa.Column("since", sa.BigInteger, nullable=False),
    sa.Index("things_by_time", "time", "position"),
)
past_of(things)
type Steps = list[tuple[str, int]]
steps = st.lists(
    st.tuples(st.sampled_from(("add", "add other", "change", "read")), st.integers(0, 9)), min_size=5, max_size=40
)


class _View:
    """A table of things that are added and changed, and the list as it should be."""

    def __init__(self, connection: sa.Connection) -> None:
        metadata.create_all(connection)
        self.connection, self.position = connection, 0
        self.rows: dict[str, dict[str, Any]] = {}
        self._replaced = Replaced(things)

    def add(self, kind: str) -> None:
        self.position += 1
        name = f"t-{(self.position * 7919) % 1000:03d}"  # the order of names is another one than that of positions
        self.rows[name] = row = {
            "thing_id": name,
            "position": self.position,
            "kind": kind,
            "time": f"{self.position % 4}",
            "since": self.position,
        }
        self.connection.execute(things.insert().values(row))

    def change(self, which: int) -> None:
        if not self.rows:
            return
        row = self.rows[sorted(self.rows)[which % len(self.rows)]]
        self.position += 1
        self._replaced.keep(row, self.position)
        row["kind"] = {"a": "b", "b": "a"}[row["kind"]]
        self._replaced.write(self.connection)
        self.connection.execute(things.update().where(things.c.thing_id == row["thing_id"]).values(row))

    def take(self, step: str, which: int) -> None:
        if step == "change":
            self.change(which)
        else:
            self.add("b" if step == "add other" else "a")


def _view(test: Callable[[_View], None]) -> None:
    engine = memory_engine()
    with engine.connect() as connection:
        test(_View(connection))
    engine.dispose()


def _pages(view: _View, page: PageRequest, between: Steps, **equal: str) -> list[int]:
    """Return the positions of all pages; the view changes between two of them."""
    found: list[int] = []
    left = iter(between)
    while rows := page_rows(view.connection, things, page, equal=equal):
        found += [row["position"] for row in rows]
        page = page._replace(after=found[-1])
        for step, which in left:
            if step == "read":
                break
            view.take(step, which)
    return found


@given(before=steps, between=steps, limit=st.integers(1, 4))
def test_the_oldest_first_pages_are_the_list_at_the_end(before: Steps, between: Steps, limit: int) -> None:
    def test(view: _View) -> None:
        for step, which in before:
            view.take(step, which)
        found = _pages(view, PageRequest(limit), [*between, ("read", 0)])
        assert found == sorted(row["position"] for row in view.rows.values())[: len(found)]
        rest = _pages(view, PageRequest(limit, after=max(found, default=0)), [])
        assert found + rest == sorted(row["position"] for row in view.rows.values())

    _view(test)


@given(before=steps, between=steps, limit=st.integers(1, 4))
def test_the_newest_first_pages_are_the_list_at_the_first_page(before: Steps, between: Steps, limit: int) -> None:
    def test(view: _View) -> None:
        for step, which in before:
            view.take(step, which)
        expected = sorted((row["position"] for row in view.rows.values()), reverse=True)
        assert _pages(view, PageRequest(limit, newest_first=True), between) == expected

    _view(test)


@given(before=steps, between=steps, limit=st.integers(1, 4), newest_first=st.booleans())
def test_pages_of_a_past_state_do_not_change(before: Steps, between: Steps, limit: int, *, newest_first: bool) -> None:
    """Filtered by a column that changes meanwhile."""

    def test(view: _View) -> None:
        for step, which in before:
            view.take(step, which)
        expected = sorted((row["position"] for row in view.rows.values() if row["kind"] == "a"), reverse=newest_first)
        page = PageRequest(limit, newest_first=newest_first, at=view.position)
        assert _pages(view, page, between, kind="a") == expected

    _view(test)


@given(before=steps, begin=st.integers(0, 3), end=st.integers(1, 4))
def test_a_range_of_times_has_its_begin_and_not_its_end(before: Steps, begin: int, end: int) -> None:
    def test(view: _View) -> None:
        for step, which in before:
            view.take(step, which)
        expected = [row["position"] for row in view.rows.values() if begin <= int(row["time"]) < end]
        assert _pages(view, PageRequest(3, begin=str(begin), end=str(end)), []) == sorted(expected)

    _view(test)


@given(before=steps, at=st.integers(1, 30))
def test_both_forms_of_a_past_state_agree(before: Steps, at: int) -> None:
    def test(view: _View) -> None:
        for step, which in before:
            view.take(step, which)
        forms = (as_of(things, at), as_of_by_key(things, at))
        whole, by_keys = (sorted(map(tuple, view.connection.execute(sa.select(form)))) for form in forms)
        assert whole == by_keys

    _view(test)


@given(before=steps, limit=st.integers(1, 3), descending=st.booleans())
def test_pages_by_key_are_the_list(before: Steps, limit: int, *, descending: bool) -> None:
    def test(view: _View) -> None:
        for step, which in before:
            view.take(step, which)
        found: list[str] = []
        after = None
        while True:
            query = by_key(sa.select(things), things.primary_key, after, descending=descending).limit(limit)
            if not (rows := dict_rows(view.connection, query)):
                break
            found += [row["thing_id"] for row in rows]
            after = key_of(things, cursor_of([rows[-1]["thing_id"]]))
        assert found == sorted(view.rows, reverse=descending)

    _view(test)


@pytest.mark.parametrize("cursor", ["", "x", "W10", "WzFd", "eyJhIjoxfQ", base64.b64encode(b'["a", "b"]').decode()])
def test_a_text_that_is_no_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(ValueError, match="next"):
        key_of(things, cursor)


@given(st.text())
def test_a_cursor_holds_any_key(key: str) -> None:
    assert key_of(things, cursor_of([key])) == [key]
    assert json.dumps(cursor_of([key])).isascii()
