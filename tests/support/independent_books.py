"""A second computation of all budgets from the events alone, with arithmetic of the tests' own."""

import json

from ledger.store.log import Recorded
from tests.support.documents import Document

Book = tuple[str, str, str]


def money(minor: int, currency: str = "GBP") -> dict[str, str]:
    """Return an amount in minor units as JSON carries it."""
    return {"amount": f"{minor // 100}.{minor % 100:02}", "currency": currency}


def minor_of(amount: dict[str, str]) -> int:
    """Return an amount of JSON in minor units."""
    return round(float(amount["amount"]) * (1 if amount["currency"] == "JPY" else 100))


class Kept:
    """Budgets, holds and answers as the events alone give them; refuses an overspent or changed closed budget."""

    def __init__(self) -> None:
        self.books: dict[Book, dict[str, int]] = {}
        self.holds: dict[str, int] = {}
        self.closed: set[Book] = set()
        self.overdrawn: set[Book] = set()
        self.answers: dict[tuple[str, str], int] = {}
        self.taken: dict[str, int] = {}
        self.undone: dict[str, int] = {}
        self.charged: list[int] = []

    def take(self, position: int, subject: str, name: str, data: Document) -> None:
        if data.get("request_sha256") is not None:
            key = data["source"], data["request_id"]
            assert key not in self.answers, "answered twice"
            self.answers[key] = position
        if not subject.startswith("ledger.budget."):
            return
        currency = subject.split(".")[3]
        book: Book = str(data.get("holder") or data.get("budget")), data["period"], currency
        if name.startswith("escalation.") or name == "authority.fell_short":
            book = str(data.get("budget") or data["holder"]), data["period"], currency
        assert book not in self.closed, f"{name} changes a closed budget"
        if name == "budget.opened":
            held = sum(minor_of(hold["amount"]) for hold in data.get("holds", ()))
            granted = minor_of(data["granted"]) + minor_of(data["carried_over"]) + held
            self.books[book] = {"granted": granted, "spent": 0, "reserved": held}
            return
        self._move(self.books[book], book, name, data)
        sums = self.books[book]
        remaining = sums["granted"] - sums["spent"] - sums["reserved"]
        if remaining < 0:
            assert book in self.overdrawn, f"{name} overspends {book}"

    def _move(self, sums: dict[str, int], book: Book, name: str, data: Document) -> None:  # noqa: C901
        minor = minor_of(data["amount"]) if "amount" in data else 0
        if data.get("basis", "goodwill") != "goodwill":  # the owed part draws no budget
            minor = minor - minor_of(data["owed"]) if "owed" in data else 0
        match name:
            case "action.taken":
                sums["reserved"] -= self.holds.pop(data["action_id"], 0)
                sums["spent"] += minor
                self.taken[data["action_id"]] = minor_of(data["amount"])
            case "action.held":
                sums["reserved"] += minor
                self.holds[data["action_id"]] = minor
            case "action.settled":
                sums["reserved"] -= self.holds.pop(data["action_id"])
                sums["spent"] += minor
                self.taken[data["action_id"]] = minor_of(data["amount"])
            case "action.voided":
                sums["reserved"] -= self.holds.pop(data["action_id"])
            case "action.charged":
                sums["spent"] += minor
                before = self.taken.get(data["action_id"], 0) if "decided" in data else 0
                self.taken[data["action_id"]] = before + minor_of(data["amount"])
                self.overdrawn.add(book)
                self.charged.append(data["relates_to"])
            case "action.reversed":
                self.undone[data["action_id"]] = self.undone.get(data["action_id"], 0) + minor_of(data["amount"])
                assert self.undone[data["action_id"]] <= self.taken[data["action_id"]]
                if data["recovered"]:
                    sums["granted" if data.get("late") else "spent"] += minor if data.get("late") else -minor
            case "budget.granted":
                sums["granted"] += minor
            case "budget.transferred" | "budget.drawn":
                sums["granted"] += minor if data["direction"] == "in" else -minor
            case "budget.closed":
                gone = minor_of(data["lapsed"]) + minor_of(data["carried_over"]) + sums["reserved"]
                assert minor_of(data["spent"]) == sums["spent"]
                sums["granted"] -= gone
                sums["reserved"] = 0
                self.closed.add(book)

    def shown(self) -> dict[Book, tuple[int, int, int]]:
        return {book: (sums["granted"], sums["spent"], sums["reserved"]) for book, sums in self.books.items()}

    def read(self, recorded: Recorded) -> None:
        """Apply one event of the log."""
        stored = json.loads(recorded.data)
        self.take(recorded.position, recorded.subject, stored["type"][11:-3], stored["data"])
