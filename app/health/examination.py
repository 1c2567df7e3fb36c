"""The examination of a ledger by `admin doctor`: its roles, wherever they run, and its stored data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.health.check import Check, run_check
from app.health.inbox_checks import history_mode, waiting_messages
from app.health.role_checks import REQUIRED, role_checks
from app.runtime.announcement import announced_http_url
from app.runtime.roles import has_archive_extra
from config import topology
from ledger.store.role_status import HOST, RoleAnswers, ask_roles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from app.runtime.session import Session


_NO_UP_SECONDS = 1.0
"""Time limit for roles if no `up` has announced itself."""
_OPTIONAL_SECONDS = 0.5


async def examine(session: Session, *, patience: float, at_rest: bool) -> list[Check]:
    """Run all checks; with ``at_rest`` no role needs to run."""
    from app.health.checks import checks_of, subscriptions  # a health check of one role needs none of them

    if session.embedded and not (session.data_dir / "connection.json").exists():
        patience = min(patience, _NO_UP_SECONDS)
    heard: dict[str, RoleAnswers] = {}
    found: list[Check] = []
    if not at_rest:
        expected = {
            "archive": _keeps_archive(session),
            "webhooks": bool(await subscriptions(session)),
            "dashboard": bool(announced_http_url(session.data_dir)),
        }
        required = (*REQUIRED, *(role for role, is_expected in expected.items() if is_expected))
        asked = dict.fromkeys(expected, min(patience, _OPTIONAL_SECONDS)) | dict.fromkeys(required, patience)
        heard = await ask_roles(session.client, topology.ROLES_SUBJECT, asked)
        optional = (role for role in expected if role not in required and heard[role].statuses)
        found += await run_check("roles", role_checks(session, (*required, *optional), heard))
        found += await run_check("history mode", history_mode(session, heard))
    if heard.get("intake", RoleAnswers()).statuses:
        found += await run_check("inbox", waiting_messages(session))
    return _without_consequences(found + await checks_of(session, heard))


def _keeps_archive(session: Session) -> bool:
    """Return whether an archive is kept: by `up` on this machine, or because one exists here."""
    return (session.embedded and has_archive_extra()) or (session.data_dir / "archive" / "manifest.jsonl").exists()


def _without_consequences(checks: list[Check]) -> list[Check]:
    """Return the checks without findings that another finding causes.

    The alarm ends roles that write, and `up` with all of its roles; none of them starts until it is cleared. A lost
    seal keeps its role waiting, and an intake that hangs leaves messages.
    """
    wrong = {check.check for check in checks if not check.ok}
    caused = {"role seal"} if "seal" in wrong else set()
    caused |= {"role archive"} if "archive" in wrong else set()
    caused |= {"roles", "role intake", "role decisions"} if "alarm" in wrong else set()
    return [
        check
        for check in checks
        if check.ok or not (check.check in caused or ("role intake" in wrong and check.check.startswith("inbox ")))
    ]


async def examine_roles(session: Session, roles: Sequence[str], *, patience: float, here: bool) -> list[Check]:
    """Check only these roles; with ``here``, only their processes on this host."""
    heard = await ask_roles(session.client, topology.ROLES_SUBJECT, dict.fromkeys(roles, patience))
    if here:
        heard = {
            role: one._replace(statuses=tuple(status for status in one.statuses if status.host == HOST))
            for role, one in heard.items()
        }
    found: list[Check] = []
    for role in roles:
        found += await run_check(f"role {role}", role_checks(session, [role], heard, here=here))
    return found
