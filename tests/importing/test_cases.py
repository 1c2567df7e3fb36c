"""Small files that other importers have read wrongly, each with its right answer."""

from pathlib import Path

import pytest

from app.importing.csv_rows import ImportFileError
from tests.support.environment import ROOT
from tests.support.imports import RETURNS, Made, imported, mapping_of

CASES = ROOT.parent / "shared" / "cases" / "import"
pytestmark = pytest.mark.skipif(not CASES.exists(), reason="the cases are not at ../shared/cases")
SEMICOLONS = {"returns": {"delimiter": ";", "decimal": ",", "thousands": "."}}
ABOVE = (
    "amount > 0",
    "TRY_CAST(amount AS DECIMAL(18, 2)) > 0",
    "CAST(amount AS DECIMAL(18, 2)) > 0",
    "amount BETWEEN 0 AND 1e40",
)


def made(folder: Path, name: str, select: str = RETURNS, **envelope: object) -> Made:
    return imported(folder, mapping_of(select) | envelope, [CASES / name])


def test_an_unclosed_quote_is_an_error_with_the_line_where_it_began(tmp_path: Path) -> None:
    with pytest.raises(ImportFileError, match=r"unclosed_quote\.csv, line 2: the quoted cell .* is never closed"):
        made(tmp_path, "unclosed_quote.csv")


def test_rows_with_too_many_cells_are_rejected(tmp_path: Path) -> None:
    found = made(tmp_path, "too_many_cells.csv")
    assert [(one.line, one.message) for one in found.report.rejected] == [
        (2, "6 cells for 5 columns"),
        (3, "7 cells for 5 columns"),
    ]
    assert found.amounts == ["3.00 GBP"]


def test_a_blank_id_is_rejected(tmp_path: Path) -> None:
    found = made(tmp_path, "blank_id.csv")
    assert [(one.line, one.message.startswith("no is blank")) for one in found.report.rejected] == [
        (2, True),
        (3, True),
    ]
    assert [one["id"] for one in found.events] == ["31"]


@pytest.mark.parametrize("condition", ["", *ABOVE])
def test_odd_amounts_are_rejected_with_line_column_and_value(tmp_path: Path, condition: str) -> None:
    found = made(tmp_path, "odd_amounts.csv", RETURNS + (f" WHERE {condition}" if condition else ""))
    assert found.faults == [(line, "amount") for line in range(2, 6)]
    for one, value in zip(found.report.rejected, ("2e30", "n/a", "2_000", "٣"), strict=True):
        assert one.message.startswith(f"amount {value!r}: ")
    assert found.amounts == ["5.00 GBP"]


def test_a_byte_order_mark_before_a_quoted_header_is_left_out(tmp_path: Path) -> None:
    assert [one["id"] for one in made(tmp_path, "bom_quoted_header.csv").events] == ["51"]


def test_a_column_that_stands_twice_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ImportFileError, match="column 'amount' stands twice"):
        made(tmp_path, "duplicate_header.csv")


def test_local_times_of_clock_changes_are_rejected_unless_the_mapping_chooses(tmp_path: Path) -> None:
    found = made(tmp_path, "clock_change.csv")
    assert found.faults == [(3, "at"), (4, "at")]
    assert ["does not exist" in one.message for one in found.report.rejected] == [True, False]
    assert all("`ambiguous: earlier`" in one.message for one in found.report.rejected)
    for choice, times in (("earlier", ["00:20", "00:40"]), ("later", ["01:20", "01:40"])):
        chosen = made(tmp_path, "clock_change.csv", ambiguous=choice)
        assert [one["time"][11:16] for one in chosen.events] == ["00:50", *times]


def test_semicolons_and_decimal_commas_are_read_as_said(tmp_path: Path) -> None:
    for amount in ("amount", "CAST(amount AS DECIMAL(12, 2))"):
        select = RETURNS.replace("'amount': amount", f"'amount': {amount}")
        assert made(tmp_path, "semicolon.csv", select, files=SEMICOLONS).amounts == ["5.75 GBP", "1250.00 GBP"]
    with pytest.raises(ImportFileError, match="looks like semicolons"):
        made(tmp_path, "semicolon.csv")


def test_several_currencies(tmp_path: Path) -> None:
    found = made(tmp_path, "multi_currency.csv", RETURNS.replace("'GBP'", "currency"))
    assert found.amounts == ["4.00 GBP", "1200 JPY", "1.500 KWD"]


@pytest.mark.parametrize("condition", ["ok = 'true'", "ok = true", "ok", "ok IS TRUE"])
def test_truth_values(tmp_path: Path, condition: str) -> None:
    found = made(tmp_path, "truth_values.csv", f"{RETURNS} WHERE {condition}")
    assert [one["id"] for one in found.events] == ["95"]
    assert found.report.nothing == []


def test_a_condition_that_never_holds_is_reported(tmp_path: Path) -> None:
    found = made(tmp_path, "truth_values.csv", f"{RETURNS} WHERE ok = 'true' OR country = 'FI'")
    assert [one["id"] for one in found.events] == ["95"]
    assert [one.partition(": ")[2] for one in found.report.nothing] == ["the condition country = 'FI' held for no row"]


def test_hashed_addresses_make_one_customer(tmp_path: Path) -> None:
    found = made(tmp_path, "by_email.csv", RETURNS.replace("customer AS", "email_hash(email) AS"))
    assert len({one["data"]["customer_id"] for one in found.events}) == 1
    assert len(found.events) == 2
    assert "pat@" not in str(found.events).lower()


def test_an_address_as_an_id_is_rejected_before_it_is_published(tmp_path: Path) -> None:
    found = made(tmp_path, "by_email.csv", RETURNS.replace("customer AS", "email AS"))
    assert (found.events, found.faults) == ([], [(2, "email"), (3, "email")])


def test_numbers_of_tills_are_ids(tmp_path: Path) -> None:
    ids = [one["id"] for one in made(tmp_path, "till_numbers.csv").events]
    assert ids == ["0042-17-000123", "007-42", "0123456789", "01-234567"]
