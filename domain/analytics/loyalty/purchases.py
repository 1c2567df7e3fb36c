"""Purchases of many customers as arrays, so that a window of time is answered for a million in seconds.

Customers are whole numbers from 0, times whole seconds since 1970, amounts minor units of one currency.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

type Ints = NDArray[np.int64]
type Floats = NDArray[np.float64]
type Flags = NDArray[np.bool_]
DAY = 86_400
_SHIFT = 34  # seconds since 1970 stay below 2^34 until the year 2514
NEVER = int(np.iinfo(np.int64).max)
NEVER_DAYS = 3650.0
"""The recency of a customer without a purchase."""


class Moments(NamedTuple):
    """Customers, each at a moment: that of an action or a problem."""

    customer: Ints
    at: Ints

    def some(self, which: Ints | Flags) -> Moments:
        """Return the moments of a mask or of indices."""
        return Moments(self.customer[which], self.at[which])


class Past(NamedTuple):
    """The known purchases of customers before moments; without an event before, see ``NEVER_DAYS``."""

    events: Ints
    days_since_last: Floats
    amount: Floats
    days_since_first: Floats
    """0 without an event before."""


class History:
    """Customers' events in order of time, each with an amount: purchases, or other things that are counted."""

    def __init__(self, customer: Ints, at: Ints, minor: Ints) -> None:
        order = np.lexsort((at, customer))
        self._keys = (customer[order] << _SHIFT) + at[order]
        self._sums = np.concatenate(([0], np.cumsum(minor[order])))
        self._at = at[order]
        self._customers = customer
        self._times = at
        many = int(customer.max()) + 2 if at.size else 1
        self._begins = np.searchsorted(self._keys, np.arange(many) << _SHIFT, side="left")
        self.first, self.last = (int(at.min()), int(at.max())) if at.size else (0, 0)

    def first_by_customer(self, customers: int) -> Ints:
        """Return the time of each customer's first event, or ``NEVER``."""
        found = np.full(customers, NEVER, np.int64)
        np.minimum.at(found, self._customers, self._times)
        return found

    def __len__(self) -> int:
        return self._keys.size

    def _place(self, customer: Ints, at: Ints) -> Ints:
        """Return the index behind the events before or at these moments."""
        return np.searchsorted(self._keys, (customer << _SHIFT) + at, side="right")

    def count(self, of: Moments, start: int, end: int) -> Ints:
        """Return the number of events in (moment + start, moment + end], in seconds."""
        return self._place(of.customer, of.at + end) - self._place(of.customer, of.at + start)

    def total(self, of: Moments, start: int, end: int) -> Ints:
        """Return the sum of amounts of the same events."""
        until, since = self._place(of.customer, of.at + end), self._place(of.customer, of.at + start)
        return self._sums[until] - self._sums[since]

    def came(self, of: Moments, days: int) -> Floats:
        """Return 1 for each customer with an event from the moment on and within so many days, else 0."""
        return (self.count(of, -1, days * DAY) > 0).astype(np.float64)

    def spent_after(self, of: Moments, days: int) -> Floats:
        """Return the amount spent from the moment on, within so many days."""
        return self.total(of, -1, days * DAY).astype(np.float64)

    def spent_before(self, of: Moments, days: int, until: int = 0) -> Floats:
        """Return the amount spent in so many days before the moment, or before ``until`` days before it."""
        return self.total(of, -(days + until) * DAY, -until * DAY - 1).astype(np.float64)

    def before(self, of: Moments) -> Ints:
        """Return the number of events before the moments."""
        return self._place(of.customer, of.at - 1) - self._begin(of)

    def past(self, of: Moments, days: int) -> Past:
        """Return what is known of customers before the moments; amounts are of so many days."""
        begin, until = self._begin(of), self._place(of.customer, of.at - 1)
        since = self._place(of.customer, of.at - days * DAY)
        spent = (self._sums[until] - self._sums[since]).astype(np.float64)
        there = until > begin
        if not self._at.size:
            return Past(until, np.full(of.at.size, NEVER_DAYS), spent, np.zeros(of.at.size))
        newest, oldest = self._at[np.maximum(until - 1, 0)], self._at[np.minimum(begin, self._at.size - 1)]
        return Past(
            until - begin,
            np.where(there, (of.at - newest) / DAY, NEVER_DAYS),
            spent,
            np.where(there, (of.at - oldest) / DAY, 0.0),
        )

    def _begin(self, of: Moments) -> Ints:
        """Return the index of each customer's first event."""
        return self._begins[np.minimum(of.customer, self._begins.size - 1)]

    def covers(self, of: Moments, start: int, end: int) -> Flags:
        """Return whether all days of a window lie within the recorded time."""
        inside: Flags = (of.at + start >= self.first) & (of.at + end <= self.last)
        return inside


def first_of_each(of: Moments) -> Ints:
    """Return the index of every customer's first moment, in order of time."""
    order = np.lexsort((of.at, of.customer))
    first = order[np.concatenate(([True], np.diff(of.customer[order]) != 0))] if order.size else order
    return first[np.argsort(of.at[first], kind="stable")]
