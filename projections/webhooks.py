"""The book of webhooks: subscriptions, their progress and their dead letters, in the stream WEBHOOKS.

One message a subject: `webhooks.subscription.<id>`, `webhooks.progress.<id>`, `webhooks.dead.<id>.<letter>` and, while
a dead letter waits to be sent again, `webhooks.again.<id>.<letter>`.
"""

from __future__ import annotations

import base64
import secrets
from collections import Counter, defaultdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from domain.serialization import FieldError, Instant
from domain.webhooks import Webhook, check_webhook
from ledger.errors import ConflictError, jetstream_error
from ledger.store.cloudevents import time_text
from ledger.store.log import Draft, Log
from ledger.store.streams import js_api
from projections.access import record_access
from projections.engine.events import TYPES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from domain.serialization import JsonObject
    from domain.webhooks import BodyFormat
    from ledger.nats.client import LedgerClient

STREAM = "WEBHOOKS"
_NOTIFY = "NOTIFY"
_SUBSCRIPTION, _PROGRESS = "webhooks.subscription", "webhooks.progress"
_DEAD, _AGAIN = "webhooks.dead", "webhooks.again"
MOST_WEBHOOKS = 100
_MOST_OF_A_SOURCE = 10
_SHOWN_CHARACTERS = 200
type Feed = Literal["events", "notices", "budgets"]


class WebhookProgress(msgspec.Struct, kw_only=True):
    """The progress of one webhook: everything up to these positions was delivered, or is a dead letter."""

    events: int = 0
    """A position of the log."""
    notices: int = 0
    """A sequence of the stream of notifications."""
    budgets: int = 0
    """A position of the view budget_balances."""
    delivered: int = 0
    failing_since: Instant | None = None
    last_error: str | None = None
    stopped: str | None = None
    """The reason for which the role stopped it: the receiver answered 410 (gone)."""

    def position(self, feed: Feed) -> int:
        """Return the position in one feed."""
        found: int = getattr(self, feed)
        return found


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message that was given up after all attempts. It names its event; the text is made again when it is sent."""

    id: str
    feed: Feed
    position: int
    type: str
    error: str
    attempts: int
    first: Instant
    last: Instant
    message: msgspec.Raw = msgspec.Raw(b"null")
    """The notification itself where no event holds it."""


class KeptProgress(NamedTuple):
    """A stored progress, and the sequence by which its next version is stored."""

    progress: WebhookProgress
    sequence: int


class WebhookState(NamedTuple):
    """A subscription with its progress and the number of its dead letters."""

    webhook: Webhook
    progress: WebhookProgress
    dead_letters: int

    def shown(self) -> JsonObject:
        """Return the subscription as lists show it, without its secret."""
        hook, progress = self.webhook, self.progress
        return {
            "id": hook.id,
            "url": hook.url,
            "types": list(hook.types),
            "format": hook.format,
            "source": hook.source,
            "personal": hook.personal,
            "made_by": hook.made_by,
            "made": time_text(hook.made),
            "state": "stopped" if progress.stopped else "failing" if progress.failing_since else "active",
            "position": max(hook.after, progress.events),
            "delivered": progress.delivered,
            "dead_letters": self.dead_letters,
            "failing_since": time_text(progress.failing_since) if progress.failing_since else None,
            "last_error": progress.stopped or progress.last_error,
        }


async def make_webhook(
    book: WebhookBook,
    ledger: Log,
    *,
    url: str,
    types: Sequence[str],
    made_by: str,
    body: BodyFormat = "cloudevents",
    source: str | None = None,
    personal: bool = False,
    via: str = "cli",
) -> Webhook:
    """Add a subscription to everything after this moment, and return it with its signing secret.

    ``made_by`` is recorded as an access by ``via`` first: a subscription without a record does not begin.

    Raises:
        FieldError: a field is invalid, or there are as many subscriptions as there may be.
        UnavailableError: the server does not answer.

    """
    check_webhook(url, types, body, TYPES)
    others = await book.all()
    own = sum(one.source == source for one in others)
    if len(others) >= MOST_WEBHOOKS or (source is not None and own >= _MOST_OF_A_SOURCE):
        message = f"{MOST_WEBHOOKS} subscriptions are allowed, {_MOST_OF_A_SOURCE} of one source: remove one first"
        raise FieldError(message, "url")
    webhook = Webhook(
        id=secrets.token_hex(8),
        url=url,
        types=tuple(dict.fromkeys(types)),
        secret=f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}",
        made_by=made_by,
        made=datetime.now(UTC),
        format=body,
        source=source,
        personal=personal,
        after=await ledger.last_position(),
        notices_after=await book.last_notice(),
    )
    what = f"webhook made: {webhook.id} to {url[:_SHOWN_CHARACTERS]}{' with personal fields' if personal else ''}"
    await record_access(ledger, made_by, what, via)
    await book.add(webhook)
    return webhook


async def remove_webhook(book: WebhookBook, ledger: Log, identifier: str, removed_by: str, via: str) -> None:
    """Remove a subscription, its progress and its dead letters, and record who did it.

    Raises:
        UnavailableError: the server does not answer.

    """
    await book.remove(identifier)
    await record_access(ledger, removed_by, f"webhook removed: {identifier}", via)


class WebhookBook:
    """Reads and writes the book of webhooks of one ledger."""

    def __init__(self, log: Log, notices: Log) -> None:
        """Use ``open``."""
        self._log = log
        self._notices = notices

    @classmethod
    async def open(cls, client: LedgerClient) -> WebhookBook:
        """Open the book of this connection's ledger."""
        return cls(await Log.unstamped(client, STREAM), await Log.unstamped(client, _NOTIFY))

    async def last_notice(self) -> int:
        """Return the sequence of the last notification."""
        return await self._notices.last_position()

    async def states(self, source: str | None = None) -> list[WebhookState]:
        """Return the subscriptions with their progress, the oldest first; with ``source``, those of this source.

        Raises:
            UnavailableError: the server does not answer.

        """
        progress: dict[str, WebhookProgress] = {}
        letters = Counter[str]()
        webhooks: list[Webhook] = []
        for stored in await self._log.read_subject("webhooks.>"):
            kind, _, identifier = stored.subject.removeprefix("webhooks.").partition(".")
            match kind:
                case "subscription":
                    webhooks.append(msgspec.json.decode(stored.data, type=Webhook))
                case "progress":
                    progress[identifier] = msgspec.json.decode(stored.data, type=WebhookProgress)
                case "dead":
                    letters[identifier.partition(".")[0]] += 1
        return [
            WebhookState(one, progress.get(one.id) or WebhookProgress(), letters[one.id])
            for one in webhooks
            if source in (None, one.source)
        ]

    async def all(self) -> list[Webhook]:
        """Return the subscriptions in the order of their making.

        Raises:
            UnavailableError: the server does not answer.

        """
        found = await self._log.read_subject(f"{_SUBSCRIPTION}.*")
        return [msgspec.json.decode(one.data, type=Webhook) for one in found]

    async def find(self, identifier: str) -> Webhook | None:
        """Return a subscription; none if there is none with this id."""
        found = await self._log.last(f"{_SUBSCRIPTION}.{identifier}") if identifier.isalnum() else None
        return msgspec.json.decode(found.data, type=Webhook) if found is not None else None

    async def add(self, webhook: Webhook) -> None:
        """Store a new subscription."""
        await self._log.append([Draft(f"{_SUBSCRIPTION}.{webhook.id}", msgspec.json.encode(webhook), 0)])

    async def remove(self, identifier: str) -> None:
        """Remove a subscription, its progress and its dead letters."""
        for subject in (
            f"{_SUBSCRIPTION}.{identifier}",
            f"{_PROGRESS}.{identifier}",
            f"{_DEAD}.{identifier}.*",
            f"{_AGAIN}.{identifier}.*",
        ):
            await self._delete(subject)

    async def progress(self, identifier: str) -> KeptProgress | None:
        """Return the progress of a subscription; none before its first delivery."""
        found = await self._log.last(f"{_PROGRESS}.{identifier}")
        if found is None:
            return None
        return KeptProgress(msgspec.json.decode(found.data, type=WebhookProgress), found.position)

    async def keep(self, identifier: str, progress: WebhookProgress, sequence: int) -> int:
        """Store a progress in the place of the version with a sequence (0: none); return its own.

        Raises:
            ConflictError: another process has stored one, and delivers now.

        """
        return await self._log.append([Draft(f"{_PROGRESS}.{identifier}", msgspec.json.encode(progress), sequence)])

    async def bury(self, identifier: str, letter: DeadLetter) -> None:
        """Store a dead letter."""
        await self._log.append([Draft(f"{_DEAD}.{identifier}.{letter.id}", msgspec.json.encode(letter))])

    async def letters(self, identifier: str) -> list[DeadLetter]:
        """Return the dead letters of a subscription, the oldest first."""
        found = await self._log.read_subject(f"{_DEAD}.{identifier}.*")
        return [msgspec.json.decode(one.data, type=DeadLetter) for one in found]

    async def ask_again(self, identifier: str, letter: str) -> bool:
        """Have a dead letter sent again; return whether there is one."""
        if not letter.isalnum() or await self._log.last(f"{_DEAD}.{identifier}.{letter}") is None:
            return False
        try:
            await self._log.append([Draft(f"{_AGAIN}.{identifier}.{letter}", b"{}", 0)])
        except ConflictError:
            return True  # it waits already
        return True

    async def asked_again(self) -> dict[str, list[str]]:
        """Return the ids of the dead letters that wait to be sent again, by subscription."""
        found: defaultdict[str, list[str]] = defaultdict(list)
        for one in await self._log.read_subject(f"{_AGAIN}.>"):
            _, _, identifier, letter = one.subject.split(".")
            found[identifier].append(letter)
        return found

    async def letter(self, identifier: str, letter: str) -> DeadLetter | None:
        """Return a dead letter; none where there is none with this id."""
        found = await self._log.last(f"{_DEAD}.{identifier}.{letter}")
        return msgspec.json.decode(found.data, type=DeadLetter) if found is not None else None

    async def settle(self, identifier: str, letter: str, *, delivered: bool) -> None:
        """Remove the wish to send a dead letter again and, once it is delivered, the letter."""
        for prefix in (_AGAIN, _DEAD) if delivered else (_AGAIN,):
            await self._delete(f"{prefix}.{identifier}.{letter}")

    async def _delete(self, subject: str) -> None:
        answer = await js_api(self._log.client, f"STREAM.PURGE.{STREAM}", {"filter": subject})
        if "error" in answer:
            raise jetstream_error(answer["error"], "the book of webhooks")
