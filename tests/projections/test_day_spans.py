"""Pages far from their times: found day by day, they are those of a list that is sorted whole."""

from pathlib import Path

import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from projections.engine.day_spans import DaySpans, is_far, positions_of, spans_of
from projections.engine.pages import PageRequest, page_rows
from projections.views.audit_trail import read_trail
from projections.views.casework import read_actions, read_escalations
from tests.support.builders import event, gbp
from tests.support.view_histories import Views, recorded

metadata = sa.MetaData()
things = sa.Table(
    "things",
    metadata,
    sa.Column("position", sa.BigInteger, primary_key=True),
    sa.Column("time", sa.Text),
    sa.Column("kind", sa.Text),
    sa.Index("things_by_time", "time", "position"),
)
spans_of(things)
DAYS = [f"2026-01-{day:02d}" for day in range(1, 8)]
times = st.builds("{}T{:02d}".format, st.sampled_from(DAYS), st.integers(0, 23))
rows = st.lists(st.tuples(times, st.sampled_from(["a", "b", None])), max_size=40)
limits = st.none() | times
kinds = st.sampled_from([None, "any", "b"])


@given(rows, limits, limits, st.integers(1, 6), st.integers(0, 42), st.booleans(), kinds, st.integers(1, 9))
def test_a_page_by_days_is_the_page_of_the_sorted_list(
    told: list[tuple[str, str | None]],
    begin: str | None,
    end: str | None,
    limit: int,
    after: int,
    newest_first: bool,
    of_kind: str | None,
    batch: int,
) -> None:
    engine, spans = sa.create_engine("sqlite://"), DaySpans(things)
    with engine.connect() as connection:
        metadata.create_all(connection)
        for position, (time, kind) in enumerate(told, 1):
            connection.execute(things.insert().values(position=position, time=time, kind=kind))
            spans.note(time, position)
            if position % batch == 0:
                spans.write(connection)
        spans.write(connection)
        page = PageRequest(limit, after, newest_first, None, begin, end)
        without_blank, equal = "kind" if of_kind == "any" else None, {"kind": "b"} if of_kind == "b" else {}
        found = positions_of(connection, things, page, "time", without_blank, equal)
    engine.dispose()
    expected = [
        position
        for position, (time, kind) in enumerate(told, 1)
        if (begin is None or time >= begin)
        and (end is None or time < end)
        and (of_kind is None or (kind is not None and of_kind in ("any", kind)))
        if not after or (position < after if newest_first else position > after)
    ]
    assert found == sorted(expected, reverse=newest_first)[:limit]


async def test_lists_of_a_far_day_have_late_rows_in_their_place(tmp_path: Path) -> None:
    """Rows of the day that were recorded much later come first; pages meet without a gap."""
    facts = []
    for number in range(300):
        day = 1 if number in (7, 8, 9, 290) else 20
        time = f"2026-01-{day:02d}T10:00:{number % 60:02d}Z"
        given = {"amount": gbp("5.00"), "kind": "refund", "reason": "late"}
        if number % 2:
            given |= {"escalation_id": f"E-{number}", "requested_by": "A-1"}
            facts.append(event(f"e-{number}", "escalation.reported", "desk", time, **given))
        else:
            facts.append(event(f"e-{number}", "action.reported", "desk", time, agent_id="A-1", **given))
    views = Views(tmp_path, ["casework", "audit_trail"]).take(recorded(facts), 50)
    first = PageRequest(1, 0, True, None, "2026-01-01", "2026-01-02")  # noqa: FBT003 - newest first

    async def pages(view: str, read: object) -> list[int]:
        def all_pages(connection: sa.Connection) -> list[int]:
            found: list[int] = []
            page = first
            while some := read(connection, page=page):  # type: ignore[operator]
                found += [row["position"] for row in some]
                page = page._replace(after=found[-1])
            return found

        return (await views.read(view, all_pages)).result

    assert await pages("audit_trail", read_trail) == [291, 10, 9, 8]
    assert await pages("casework", read_actions) == [291, 9]
    assert await pages("casework", read_escalations) == [10, 8]


def test_a_table_without_spans_is_read_in_its_order() -> None:
    other = sa.MetaData()
    plain = sa.Table("plain", other, sa.Column("position", sa.BigInteger, primary_key=True), sa.Column("time", sa.Text))
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        other.create_all(connection)
        connection.execute(plain.insert(), [{"position": at, "time": DAYS[at % 7]} for at in range(1, 200)])
        page = PageRequest(5, 0, begin=DAYS[3], end=f"{DAYS[3]}~")
        assert not is_far(connection, plain, page)
        assert [row["position"] for row in page_rows(connection, plain, page)] == [3, 10, 17, 24, 31]
    engine.dispose()


def test_rows_of_a_value_are_far_only_where_they_are_many() -> None:
    """A page of a rare value is read by that value's index, however far; each gives the rows of the list filtered."""
    engine = sa.create_engine("sqlite://")
    with engine.connect() as connection:
        metadata.create_all(connection)
        told = [{"position": at, "time": DAYS[(at - 1) // 200], "kind": "ab"[at % 50 == 0]} for at in range(1, 1001)]
        connection.execute(things.insert(), told)
        spans = DaySpans(things)
        for row in told:
            spans.note(str(row["time"]), int(str(row["position"])))
        spans.write(connection)
        page = PageRequest(3, 0, True, None, DAYS[0], f"{DAYS[0]}~")  # noqa: FBT003 - newest first
        assert [is_far(connection, things, page, "time", {"kind": kind}) for kind in "ab"] == [True, False]
        for kind, expected in (("a", [199, 198, 197]), ("b", [200, 150, 100])):
            assert [row["position"] for row in page_rows(connection, things, page, (), {"kind": kind})] == expected
    engine.dispose()


def test_a_value_that_is_many_now_and_rare_then_is_not_looked_for_day_by_day() -> None:
    """Thirty days without it end the search by days; the page has the rows of the list filtered all the same."""
    engine = sa.create_engine("sqlite://")
    days = [f"2026-01-{day:02d}" for day in range(1, 32)]
    with engine.connect() as connection:
        metadata.create_all(connection)
        told = [{"position": at, "time": days[(at - 1) // 10], "kind": "ba"[at > 1]} for at in range(1, 301)]
        told += [{"position": at, "time": days[30], "kind": "b"} for at in range(301, 501)]
        connection.execute(things.insert(), told)
        spans = DaySpans(things)
        for row in told:
            spans.note(str(row["time"]), int(str(row["position"])))
        spans.write(connection)
        page = PageRequest(3, 0, True, None, days[0], days[30])  # noqa: FBT003 - newest first
        assert is_far(connection, things, page, "time", {"kind": "b"})
        assert positions_of(connection, things, page, equal={"kind": "b"}) is None
        assert [row["position"] for row in page_rows(connection, things, page, (), {"kind": "b"})] == [1]
    engine.dispose()
