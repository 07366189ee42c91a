"""The OpenAPI document of the API, and its page: one file without scripts, which loads nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from html import escape
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import Response

from services.listeners.http.bodies import BATCH, CLOUDEVENT
from services.listeners.http.pages import in_html, page
from services.listeners.http.posting import LONGEST_WAIT_SECONDS
from services.listeners.http.problem import PROBLEM_SCHEMA, PROBLEMS

_ABOUT: Final = """Events in, signals to waiting runs, and what became of both.

Every call but those of health, of webhooks and of approval links wants `Authorization: Bearer TOKEN`; `sluice token
create` makes tokens. Whatever is refused is explained in a problem document (RFC 9457) that says what to do. Lists have
a `cursor`: pass `next` on to go on where a page ended.
"""

_EVENT: Final = {
    "type": "object",
    "description": "A CloudEvent 1.0",
    "required": ["specversion", "id", "type"],
    "properties": {
        "specversion": {"type": "string", "const": "1.0"},
        "id": {"type": "string", "minLength": 1, "maxLength": 256},
        "source": {"type": "string", "minLength": 1, "maxLength": 256},
        "type": {"type": "string", "minLength": 1, "maxLength": 256},
        "subject": {"type": ["string", "null"]},
        "time": {"type": ["string", "null"], "format": "date-time"},
        "data": {},
    },
}

_SIGNAL: Final = {
    "type": "object",
    "description": "A resume message: `key`, or `run_id`",
    "properties": {
        "id": {"type": "string", "description": "sending again under one id resumes nothing twice"},
        "key": {"type": "string", "maxLength": 200},
        "run_id": {"type": "string", "format": "uuid"},
        "input": {"type": "object"},
        "action": {"enum": ["resume", "reject"], "default": "resume"},
        "reason": {"type": "string", "maxLength": 1000},
        "by": {"type": "string", "maxLength": 200},
        "deliver": {"enum": ["all", "one"], "default": "all"},
        "ttl_seconds": {"type": "number", "exclusiveMinimum": 0},
        "buffer": {"type": "boolean", "description": "keep it for a later run where the last wait for the key is over"},
    },
}

_TAKEN: Final = {
    "type": "object",
    "required": ["id", "source", "new"],
    "properties": {
        "id": {"type": "string"},
        "source": {"type": "string"},
        "new": {"type": "boolean", "description": "false: the id was known, and nothing new is started"},
    },
}
_BATCH_TAKEN: Final = {
    "type": "object",
    "required": ["events"],
    "properties": {"events": {"type": "array", "items": {"$ref": "#/components/schemas/Taken"}}},
}
_EITHER: Final = {"oneOf": [{"$ref": "#/components/schemas/Taken"}, {"$ref": "#/components/schemas/BatchTaken"}]}
_READY: Final = {
    "type": "object",
    "required": ["ready", "problems", "roles"],
    "properties": {
        "ready": {"type": "boolean"},
        "problems": {"type": "array", "items": {"type": "string"}},
        "roles": {"type": "object", "additionalProperties": {"type": "boolean"}},
        "degraded": {"type": "array", "items": {"type": "string"}},
    },
}


def _json(schema: Mapping[str, Any], description: str, kind: str = "application/json") -> dict[str, Any]:
    return {"description": description, "content": {kind: {"schema": schema}}}


def _operation(tag: str, name: str, summary: str, answers: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """Return an operation of the OpenAPI document, with the errors that every route has."""
    guard: list[dict[str, list[str]]] = [] if more.pop("open", False) else [{"token": []}]
    return {
        "tags": [tag],
        "operationId": name,
        "summary": summary,
        "security": guard,
        "responses": {**PROBLEMS, **answers},
        **more,
    }


def _in_path(name: str, description: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": description, "schema": {"type": "string"}}


_EVENTS: Final = {
    "description": "One event as JSON (structured), or with its attributes in headers `ce-id`, `ce-source`, `ce-type`,"
    " … and its data as the body (binary), or an array of events (batch). 202 means that the journal holds it. The same"
    " id and source again is accepted, and starts nothing. Needs the scope `publish`.",
    "requestBody": {
        "required": True,
        "content": {
            CLOUDEVENT: {"schema": {"$ref": "#/components/schemas/CloudEvent"}},
            BATCH: {"schema": {"type": "array", "items": {"$ref": "#/components/schemas/CloudEvent"}}},
            "application/json": {"schema": {"type": "object"}},
        },
    },
}
_OF_EVENTS: Final = {"202": _json(_EITHER, "In the journal")}

_TOLD: Final = {
    "type": "object",
    "required": ["id", "outcome", "reason"],
    "properties": {name: {"type": "string"} for name in ("id", "outcome", "reason")},
}

_OPERATIONS: Final[dict[str, dict[str, Any]]] = {
    "/events": {"post": _operation("events", "publish", "Publish events", _OF_EVENTS, **_EVENTS)},
    "/events/{source}": {
        "post": _operation(
            "events",
            "publish_to_source",
            "Publish events to a source of the project, which may give plain JSON its type",
            _OF_EVENTS,
            **_EVENTS,
            parameters=[_in_path("source", "a name under `sources: http:`")],
        )
    },
    "/hooks/{name}": {
        "post": _operation(
            "events",
            "deliver_hook",
            "Deliver a webhook of another system",
            {"202": _json({"$ref": "#/components/schemas/Taken"}, "In the journal")},
            description="The signature is the proof; no token is asked for.",
            open=True,
            parameters=[_in_path("name", "a name under `sources: http: hooks:`")],
            requestBody={"required": True, "content": {"application/json": {"schema": {}}}},
        )
    },
    "/signals": {
        "post": _operation(
            "signals",
            "send_signal",
            "Send a signal to the runs that wait for a key, or to one run",
            {
                "200": _json(_TOLD, "Recorded, and this is what became of it"),
                "202": _json(_TOLD | {"required": ["id"]}, "Recorded"),
            },
            description="`GET /signals/{id}` says what becomes of it; so does the answer to `wait`. Scope: `signal`.",
            parameters=[
                {
                    "name": "wait",
                    "in": "query",
                    "description": "seconds to wait for the outcome",
                    "schema": {"type": "number", "minimum": 0, "maximum": LONGEST_WAIT_SECONDS},
                }
            ],
            requestBody={
                "required": True,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Signal"}}},
            },
        )
    },
    "/health/live": {
        "get": _operation(
            "health", "live", "Whether the process answers", {"200": _json({"type": "object"}, "It does")}, open=True
        )
    },
    "/health/ready": {
        "get": _operation(
            "health",
            "ready",
            "Whether the installation is ready, and what is missing",
            {"200": _json(_READY, "Ready"), "503": _json(_READY, "Not ready")},
            open=True,
        )
    },
    "/metrics": {
        "get": _operation(
            "health",
            "metrics",
            "Metrics in Prometheus' text format",
            {"200": _json({"type": "string"}, "Metrics", "text/plain")},
            description="Needs the scope `read`.",
        )
    },
}

_SCHEMAS: Final = {
    "CloudEvent": _EVENT,
    "Signal": _SIGNAL,
    "Taken": _TAKEN,
    "BatchTaken": _BATCH_TAKEN,
    "Problem": PROBLEM_SCHEMA,
}


def describe(app: FastAPI) -> None:
    """Add the routes that bypass FastAPI's parsing to the document of ``app``."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            whole = get_openapi(title="Sluice", version="1", description=_ABOUT, routes=app.routes)
            paths = whole.setdefault("paths", {})
            for path, operations in _OPERATIONS.items():
                paths[path] = {**paths.get(path, {}), **operations}
            components = whole.setdefault("components", {})
            components["schemas"] = {**components.get("schemas", {}), **_SCHEMAS}
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            app.openapi_schema = whole
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign] # the way that FastAPI documents


def page_of(document: Mapping[str, Any]) -> Response:
    """Return the document as an HTML page."""
    parts = [
        f"<h1>{escape(document['info']['title'])}: HTTP</h1>{in_html(document['info']['description'])}",
        '<p>For programs: <a href="openapi.json">openapi.json</a></p>',
    ]
    for path, operations in sorted(document["paths"].items()):
        parts += (_operation_part(path, method, one) for method, one in operations.items())
    parts.append("<h2>Schemas</h2>")
    for name, schema in sorted(document["components"]["schemas"].items()):
        parts.append(f'<h3 id="{escape(name)}">{escape(name)}</h3><pre>{_shown(schema)}</pre>')
    return page("Sluice: HTTP", "".join(parts))


def _operation_part(path: str, method: str, one: Mapping[str, Any]) -> str:
    return "".join(
        (
            f"<h2><code>{method.upper()} {escape(path)}</code></h2><p>{escape(one.get('summary', ''))}</p>",
            in_html(one.get("description", "")),
            _parameters(one.get("parameters", ())),
            *_bodies("Body", one.get("requestBody", {})),
            *(part for status, answer in one["responses"].items() for part in _bodies(status, answer)),
        )
    )


def _parameters(parameters: Any) -> str:
    rows = (
        f"<tr><td><code>{escape(one['name'])}</code><td>{one['in']}{', required' if one.get('required') else ''}"
        f"<td>{escape(one.get('description') or '')}"
        for one in parameters
    )
    return f"<table>{''.join(rows)}</table>" if parameters else ""


def _bodies(name: str, holder: Mapping[str, Any]) -> Iterator[str]:
    for kind, media in holder.get("content", {}).items():
        said = f" {escape(holder['description'])}" if "description" in holder else ""
        yield (
            f"<details><summary>{escape(name)}{said}: <code>{escape(kind)}</code></summary>"
            f"<pre>{_shown(media.get('schema', {}))}</pre></details>"
        )


def _shown(schema: Any) -> str:
    return escape(json.dumps(schema, indent=2, ensure_ascii=False))
