"""Retention of customers: the share that bought again within a window after the first purchase, by cohort."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

import numpy as np

from domain.analytics.empowerment_gap import Share, share

if TYPE_CHECKING:
    from numpy.typing import NDArray

WINDOWS_DAYS = (30, 90, 180)
DAY_MICROSECONDS = 86_400_000_000


class RetainedShare(Share):
    """The share of a cohort that bought again within so many days, of customers whose days are over."""

    days: int


class CohortRetention(TypedDict):
    """The customers of one month of first purchase, and how many of them bought again."""

    cohort: str
    customers: int
    bought_again: list[RetainedShare]


def retention(customer: NDArray[np.int64], at: NDArray[np.int64]) -> list[CohortRetention]:
    """Return the retention by the month (UTC) of each customer's first purchase, the oldest first.

    Each item of both arrays is a purchase: its customer, and its time in microseconds since 1970. A window counts where
    the recorded purchases reach to its end.
    """
    if at.size == 0:
        return []
    order = np.lexsort((at, customer))
    customer, times = customer[order], at[order]
    begins = np.flatnonzero(np.concatenate(([True], customer[1:] != customer[:-1])))
    first = np.repeat(times[begins], np.diff(np.append(begins, customer.size)))
    later = np.where(times > first, times, np.iinfo(np.int64).max)
    again, first, last = np.minimum.reduceat(later, begins), times[begins], int(times.max())
    months = first.astype("datetime64[us]").astype("datetime64[M]")
    found: list[CohortRetention] = []
    for month in np.unique(months):
        mine = months == month
        shares: list[RetainedShare] = []
        for days in WINDOWS_DAYS:
            end = first[mine] + days * DAY_MICROSECONDS
            over = end <= last
            shares.append({"days": days, **share(int((over & (again[mine] <= end)).sum()), int(over.sum()))})
        found.append({"cohort": str(month), "customers": int(mine.sum()), "bought_again": shares})
    return found
