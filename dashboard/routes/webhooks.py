"""Routes of webhooks: subscriptions of a source to its own matters, and of an operator to everything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypedDict

import msgspec
from fastapi import Body, Depends, HTTPException, Path, Response
from pydantic import BaseModel, ConfigDict, Field, StrictBool

from dashboard.openapi import answers
from dashboard.problem_details import ParameterError
from dashboard.schemas import JsonResponse
from domain.serialization import FieldError, JsonObject
from ledger.store.cloudevents import time_text
from projections.webhooks import WebhookBook, WebhookProgress, WebhookState, make_webhook, remove_webhook

if TYPE_CHECKING:
    from fastapi import FastAPI

    from dashboard.auth.tokens import Principal
    from dashboard.context import ApiContext

_WebhookId = Annotated[str, Path(max_length=32, description="The subscription's id.")]
_LetterId = Annotated[str, Path(max_length=64, description="The dead letter's id.")]


class Subscription(BaseModel):
    """A subscription that is asked for."""

    model_config = ConfigDict(extra="forbid")
    url: str = Field(
        max_length=2000, description="The receiver: https, http or mailto.", examples=["https://till.example/hooks"]
    )
    types: list[str] = Field(
        min_length=1,
        max_length=50,
        description="Types of events and notifications, or families such as `resolution.case.*`.",
        examples=[["resolution.action.taken.v1", "resolution.notification.escalation.v1"]],
    )
    format: Literal["cloudevents", "slack", "teams", "text"] = Field("cloudevents", description="The form of the body.")
    personal: StrictBool = Field(
        default=False, description="Send personal fields as well (operators only).", examples=[False]
    )


class WebhookRow(TypedDict):
    """A subscription, and how far its deliveries are."""

    id: str
    url: str
    types: list[str]
    format: Literal["cloudevents", "slack", "teams", "text"]
    source: str | None
    """The source that made it: it gets only its own matters."""
    personal: bool
    made_by: str
    made: str
    state: Literal["active", "failing", "stopped"]
    position: int
    """The position of the log up to which everything is delivered or a dead letter."""
    delivered: int
    dead_letters: int
    failing_since: str | None
    last_error: str | None


class NewWebhook(WebhookRow):
    """A new subscription with its signing secret, which is shown only now."""

    secret: str


class WebhookList(TypedDict):
    """The subscriptions that the caller may see."""

    items: list[WebhookRow]


class DeadLetterRow(TypedDict):
    """A message that was given up."""

    id: str
    feed: Literal["events", "notices", "budgets"]
    position: int
    type: str
    error: str
    attempts: int
    first: str
    last: str


class DeadLetterList(TypedDict):
    """The dead letters of a subscription, the oldest first."""

    items: list[DeadLetterRow]


class Redelivery(TypedDict):
    """The dead letter that is sent again."""

    id: str


async def _require_own(book: WebhookBook, viewer: Principal, webhook: str) -> None:
    """Check that a subscription exists, and that the caller may see it.

    Raises:
        HTTPException: 404, it does not.

    """
    found = await book.find(webhook)
    if found is None or viewer.source not in (None, found.source):
        raise HTTPException(404, f"no subscription {webhook} is visible to this token")


def add_webhook_routes(api: FastAPI, context: ApiContext) -> None:
    """Add the routes of webhooks, for sources and operators."""
    _add_dead_letter_routes(api, context)
    caller = Depends(context.authorizer.subscriber)
    gates = context.authorizer.subscriber_gates

    @api.post(
        "/api/v1/webhooks",
        status_code=201,
        responses=answers(NewWebhook, 201),
        dependencies=gates,
        summary="Subscribe to events and notifications",
    )
    async def subscribe(asked: Annotated[Subscription, Body()], viewer: Principal = caller) -> Response:
        book = await WebhookBook.open(context.client)
        if asked.personal and viewer.source is not None:
            raise ParameterError("personal", "only an operator may have personal fields sent")
        try:
            made = await make_webhook(
                book,
                context.log,
                url=asked.url,
                types=asked.types,
                body=asked.format,
                made_by=viewer.person_id or viewer.name,
                source=viewer.source,
                personal=asked.personal,
                via="http",
            )
        except FieldError as error:
            raise ParameterError(error.field, error.message) from None
        return JsonResponse({**WebhookState(made, WebhookProgress(), 0).shown(), "secret": made.secret}, 201)

    @api.get("/api/v1/webhooks", responses=answers(WebhookList), summary="Subscriptions, and how far they are")
    async def subscriptions(viewer: Principal = caller) -> Response:
        found = await (await WebhookBook.open(context.client)).states(viewer.source)
        return JsonResponse({"items": [one.shown() for one in found]})

    @api.delete("/api/v1/webhooks/{webhook}", status_code=204, dependencies=gates, summary="End a subscription")
    async def unsubscribe(webhook: _WebhookId, viewer: Principal = caller) -> Response:
        book = await WebhookBook.open(context.client)
        await _require_own(book, viewer, webhook)
        await remove_webhook(book, context.log, webhook, viewer.person_id or viewer.name, "http")
        return Response(status_code=204)


def _add_dead_letter_routes(api: FastAPI, context: ApiContext) -> None:
    """Add the routes of dead letters."""
    caller = Depends(context.authorizer.subscriber)

    @api.get(
        "/api/v1/webhooks/{webhook}/dead-letters",
        responses=answers(DeadLetterList),
        summary="Messages of a subscription that were given up",
    )
    async def dead_letters(webhook: _WebhookId, viewer: Principal = caller) -> Response:
        book = await WebhookBook.open(context.client)
        await _require_own(book, viewer, webhook)
        items: list[JsonObject] = []
        for letter in await book.letters(webhook):
            fields = msgspec.structs.asdict(letter)
            del fields["message"]
            items.append({**fields, "first": time_text(letter.first), "last": time_text(letter.last)})
        return JsonResponse({"items": items})

    @api.post(
        "/api/v1/webhooks/{webhook}/dead-letters/{letter}",
        status_code=202,
        responses=answers(Redelivery, 202),
        dependencies=context.authorizer.subscriber_gates,
        summary="Send a dead letter again",
    )
    async def redeliver(webhook: _WebhookId, letter: _LetterId, viewer: Principal = caller) -> Response:
        book = await WebhookBook.open(context.client)
        await _require_own(book, viewer, webhook)
        if not await book.ask_again(webhook, letter):
            raise HTTPException(404, f"the subscription has no dead letter {letter}")
        return JsonResponse({"id": letter}, 202)
