"""The page of an approval link: the question, and a form for the answer. A GET never answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import parse_qsl

import structlog
from fastapi import APIRouter, Body
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from config.api import ApiSettings
from events.errors import Backpressure, NotFound, Refused, TransientError
from events.signal import Outcome, ResumeSignal, signal_from_mapping
from services.api.forms import Given, answer_of, form_of
from services.api.scopes import BEARER, Signaller, callers_of
from services.listeners.http.bodies import read_body
from services.listeners.http.pages import in_html, page
from services.listeners.http.problem import PROBLEMS, ProblemDetails
from services.signals.approval_link import PATH, ApprovalLink, BadLink, Secret, issue
from services.store.signals.signal_record import SignalRecord
from services.store.signals.signals import SignalStore
from sluice.display import visible

if TYPE_CHECKING:
    from services.prefect_api.run_view import RunView
    from services.prefect_api.waiting import WaitingRuns

OUTCOME_SECONDS: Final = 10.0
"""How long the page waits for the outcome of an answer."""
_MOST_BYTES: Final = 256 * 1024
_MOST_TRIES: Final = 20
_SIGNAL_SECONDS: Final = 600.0

_PAGES: Final[dict[int | str, dict[str, Any]]] = {
    status: {"description": f"{said}, as a page", "content": {"text/html": {}, **PROBLEMS[status]["content"]}}
    for status, said in (("4XX", "Why there is no question here, or what is wrong with the answer"), ("503", "Not now"))
}
_FORM: Final = {
    "requestBody": {"required": True, "content": {"application/x-www-form-urlencoded": {"schema": {"type": "object"}}}}
}

log = structlog.get_logger()

Submit = Callable[[ResumeSignal], Awaitable[object]]
Runs = Callable[[], Awaitable["WaitingRuns"]]


class NewLink(BaseModel):
    """For whom an approval link is, and how long it is valid."""

    model_config = ConfigDict(extra="forbid")

    key: Annotated[str, Field(min_length=1, max_length=200)]
    person: Annotated[str, Field(alias="for", min_length=1, max_length=100)]
    expires_seconds: Annotated[float, Field(gt=0, le=30 * 86_400)] = 86_400.0
    run_id: Annotated[str | None, Field(max_length=36)] = None
    """The run, if several wait for the key."""


@dataclass(frozen=True, kw_only=True)
class Approvals:
    """The routes. ``runs`` returns Prefect's waiting runs, ``secret`` the secret for signing links."""

    runs: Runs
    signals: SignalStore
    submit: Submit
    secret: Secret
    settings: ApiSettings

    def router(self) -> APIRouter:
        """The routes, for the application."""
        router = APIRouter()
        path = PATH + "{link}"
        router.post("/signals/links", tags=["signals"], summary="Make an approval link", dependencies=[BEARER])(
            self.make
        )
        shown: dict[str, Any] = {"tags": ["signals"], "response_class": HTMLResponse, "responses": _PAGES}
        router.get(path, summary="The page of an approval link", **shown)(self.show)
        router.post(path, summary="Answer by an approval link", openapi_extra=_FORM, **shown)(self.answer)
        return router

    async def make(self, request: Request, caller: Signaller, new: Annotated[NewLink, Body()]) -> dict[str, Any]:
        """Whoever has the link may answer the wait once, under the name that it is ``for``."""
        callers_of(request).demand_key(request, caller, new.key)
        made = await issue(
            await self.runs(), key=new.key, person=new.person, seconds=new.expires_seconds, run_id=new.run_id
        )
        base = str(self.settings.public_url or f"{self.settings.scheme}://{request.headers['host']}").rstrip("/")
        url = f"{base}{PATH}{made.text(await self.secret())}"
        return {"url": url, "run_id": made.run_id, "for": made.person, "expires": made.expires.isoformat()}

    async def show(self, link: str) -> Response:
        """Show what is asked; mail scanners and previews that open the link answer nothing."""
        return await self._told(self._show(link, {}, {}))

    async def answer(self, request: Request, link: str) -> Response:
        """Answer with the form of the page; a second answer changes nothing."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/x-www-form-urlencoded":
            raise ProblemDetails(415, "not-a-form", f"the content type {kind!r} is no form", "send the page's form")
        body = await read_body(request, _MOST_BYTES, self.settings)
        return await self._told(self._answer(link, body))

    async def _told(self, work: Awaitable[Response]) -> Response:
        """Return the page, or one that says why there is none."""
        try:
            return await work
        except BadLink:
            text = "It may have been cut off on its way: open it whole, or ask for a new one."
            return _plain_page("This link is not good", text, 404)
        except NotFound:
            return _plain_page("This question is gone", "The run that asked it does not exist any more.", 410)
        except (TransientError, Backpressure, TimeoutError) as error:
            log.warning("page of an approval link refused for now", error=str(error) or "timed out")
            return _plain_page("Not now", "A part of the system does not answer. Try again in a minute.", 503)

    async def _show(self, text: str, given: Given, faults: Mapping[str, str]) -> Response:
        """Return the form of the wait, or a page that says why it cannot be answered by this link.

        ``given`` are the texts of a form that was sent and refused, ``faults`` what is wrong with each of its fields.
        """
        link = ApprovalLink.parse(text, await self.secret())
        last, _ = await self._tries(link)
        if last is not None and last.status != Outcome.REJECTED:
            return _outcome_page(link, last)
        if link.expires <= datetime.now(UTC):
            until = f"It was good until {_time(link.expires)}. Ask for a new one."
            return _plain_page("This link has expired", until, 410)
        run = await (await self.runs()).read(link.run_id)
        if not link.is_for(run):
            return await self._over_page(link)
        form = await self._form(run)
        if form is None:
            return _plain_page("Not yet", "The question is being asked right now. Load this page again.", 503)
        return _form_page(link, run, form, given, faults)

    async def _answer(self, text: str, body: bytes) -> Response:
        """Send the answer or rejection in the form as a signal, or show the form again with what is wrong with it.

        A link answers once. After a rejection by Prefect it may be used again, up to a limit, because the person could
        not know what Prefect would accept.
        """
        link = ApprovalLink.parse(text, await self.secret())
        given = _given(body)
        last, tries = await self._tries(link)
        run = await (await self.runs()).read(link.run_id)
        used = last is not None and last.status != Outcome.REJECTED
        if used or tries >= _MOST_TRIES or link.expires <= datetime.now(UTC) or not link.is_for(run):
            return await self._show(text, {}, {})
        form = await self._form(run)
        if form is None:
            return await self._show(text, {}, {})
        fields: dict[str, Any] = {"action": "resume"}
        if given.get("sluice-action") == "reject":
            fields = {"action": "reject", "reason": given.get("sluice-reason", "")[:1000] or None}
        else:
            value, faults = answer_of(form["schema"], given, pause=run.pause_key or "")
            if faults:
                return await self._show(text, given, faults)
            fields["input"] = value
        return await self._send(link, tries, fields, text, given)

    async def _send(self, link: ApprovalLink, tries: int, fields: dict[str, Any], text: str, given: Given) -> Response:
        """Submit the answer as a signal, and show its outcome."""
        id_ = link.signal_id + (f".{tries}" if tries else "")
        more = {"id": id_, "key": link.key, "by": link.person, "wait": link.wait, "ttl_seconds": _SIGNAL_SECONDS}
        try:
            async with asyncio.timeout(self.settings.journal_timeout_seconds):
                await self.submit(signal_from_mapping({**more, **fields}))
        except Refused as error:
            return await self._show(text, given, {"": error.reason})
        log.info("answered by an approval link", signal_id=id_, key=link.key, by=link.person, run_id=link.run_id)
        record = await self.signals.outcome(id_, OUTCOME_SECONDS, of=tuple(Outcome))
        if record is not None and record.status == Outcome.REJECTED:
            return await self._show(text, given, {"": record.reason})
        return _outcome_page(link, record)

    async def _tries(self, link: ApprovalLink) -> tuple[SignalRecord | None, int]:
        """Return the last answer by the link, and the number of answers: after a rejected one another may follow."""
        ids = [link.signal_id, *(f"{link.signal_id}.{number}" for number in range(1, _MOST_TRIES))]
        found = await self.signals.get_many(ids)
        return (found[-1] if found else None), len(found)

    async def _form(self, run: RunView) -> dict[str, Any] | None:
        """Return the wait's schema and description, once they exist."""
        keys = {name: run.keyset.get(name, "") for name in ("schema", "description")}
        runs = await self.runs()
        found = await runs.inputs(run.run_id, list(keys.values()))
        if keys["schema"] not in found and await runs.show_form(run):
            found = await runs.inputs(run.run_id, list(keys.values()))
        schema = found.get(keys["schema"])
        if not isinstance(schema, dict):
            return None
        return {"schema": schema, "description": str(found.get(keys["description"]) or "")}

    async def _over_page(self, link: ApprovalLink) -> Response:
        by = [one.signal.by for one in await self.signals.of_run(link.run_id) if one.status == Outcome.APPLIED]
        said = f" {_shown(by[-1])} answered last." if by and by[-1] else ""
        return _plain_page("This question is over", f"Nobody waits for an answer to it any more.{said}", 410)


def _given(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=500)
    except ValueError as error:
        raise ProblemDetails(400, "not-a-form", "the body is not a form in UTF-8", "send the page's form") from error
    return {name: value.replace("\0", "") for name, value in pairs}


def _form_page(
    link: ApprovalLink, run: RunView, form: Mapping[str, Any], given: Given, faults: Mapping[str, str]
) -> Response:
    whole = f'<p class="wrong" role="alert">{escape(faults[""])}</p>' if faults.get("") else ""
    body = (
        f"<h1>{_shown(run.name)}</h1>{in_html(visible(form['description'], lines=True))}"
        f'<p class="said">You answer as <b>{_shown(link.person)}</b>. The link is good for one answer, until'
        f" {_time(link.expires)}.</p>{whole}"
        f'<form method="post" action="">{form_of(form["schema"], given, faults)}<button>Send the answer</button></form>'
        '<details><summary>Reject instead</summary><form method="post" action="">'
        '<input type="hidden" name="sluice-action" value="reject">'
        '<p><label for="sluice-reason">Why</label><textarea rows="3" required name="sluice-reason"'
        ' id="sluice-reason"></textarea></p><button>Reject</button></form></details>'
    )
    return page(visible(run.name), body, status=422 if faults else 200)


def _outcome_page(link: ApprovalLink, record: SignalRecord | None) -> Response:
    """Return the page that tells the person what became of the answer."""
    if record is None or record.status not in {Outcome.APPLIED, Outcome.DUPLICATE, Outcome.LATE, Outcome.EXPIRED}:
        return _plain_page("Thank you", "Your answer is recorded, and is handed over as soon as that can be done.", 202)
    if record.status != Outcome.APPLIED:
        return _plain_page("This question is over", f"Your answer changed nothing: {_shown(record.reason)}.", 410)
    said = "rejection" if record.signal.action == "reject" else "answer"
    answer = json.dumps(record.signal.input, ensure_ascii=False) if record.signal.input else ""
    more = f"<pre>{_shown(answer)}</pre>" if answer else ""
    at = _time(record.decided or record.received)
    return _plain_page("Thank you", f"The {said} of <b>{_shown(link.person)}</b> was taken at {at}.{more}", 200)


def _plain_page(title: str, html: str, status: int) -> Response:
    return page(title, f"<h1>{escape(title)}</h1><p>{html}</p>", status=status)


def _shown(text: str) -> str:
    """Return the text as HTML, with hidden characters escaped."""
    return escape(visible(text))


def _time(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
