"""Traces by OpenTelemetry, where its own variables name a collector; without them nothing of it is imported.

An event carries its trace in ``traceparent``, the extension attribute of CloudEvents for distributed tracing. Sluice's
steps are spans in that trace; an event without one begins a trace where it is accepted.
"""

from __future__ import annotations

import atexit
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from events.event import Event

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer

TRACEPARENT: Final = "traceparent"

_ENDPOINTS: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS: Final = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL: Final = "http/protobuf"

LAST_SECONDS: Final = 1.0
"""Time limit for sending the remaining spans when a process ends; then they are lost."""

_FORM: Final = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

_incoming: ContextVar[str | None] = ContextVar("incoming", default=None)


class _State:
    tracer: Tracer | None = None


def is_wanted(environ: Mapping[str, str]) -> bool:
    """Whether the variables of OpenTelemetry name a collector."""
    off = environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or environ.get("OTEL_TRACES_EXPORTER") == "none"
    return not off and any(environ.get(name) for name in _ENDPOINTS)


def is_on() -> bool:
    """Whether this process makes spans."""
    return _State.tracer is not None


def preload(environ: Mapping[str, str]) -> None:
    """Import what `set_up` needs, for the forks of this process."""
    if is_wanted(environ):
        _packages()


def set_up(environ: Mapping[str, str], *, role: str) -> None:
    """Begin to make spans if they are wanted: once in a process, after its last fork."""
    if not is_wanted(environ) or is_on():
        return
    import structlog  # commands import this module but do not log

    packages = _packages()
    if packages is None:
        structlog.get_logger().warning(
            "there will be no traces: the packages for them are not installed",
            remedy="pip install 'sluice-events[service,traces]', or unset OTEL_EXPORTER_OTLP_ENDPOINT",
        )
        return
    protocol = next((environ[name] for name in _PROTOCOLS if environ.get(name)), _PROTOCOL)
    if protocol != _PROTOCOL:
        structlog.get_logger().warning(
            "traces are sent as http/protobuf only", asked_for=protocol, remedy="collectors take it on port 4318"
        )
    from opentelemetry import trace

    exporter, resource, provider, processor = packages
    known = {"sluice.role": role} | ({} if environ.get("OTEL_SERVICE_NAME") else {"service.name": "sluice"})
    tracing = provider(resource=resource.create(known), shutdown_on_exit=False)
    sending = processor(exporter())
    tracing.add_span_processor(sending)
    trace.set_tracer_provider(tracing)
    atexit.register(_send_the_rest, sending)
    _State.tracer = tracing.get_tracer("sluice")


def _packages() -> tuple[Any, Any, Any, Any] | None:
    """Return what tracing needs of OpenTelemetry; None if the extra is not installed."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        return None
    return OTLPSpanExporter, Resource, TracerProvider, BatchSpanProcessor


def _send_the_rest(processor: Any) -> None:
    """Send the rest in a daemon thread, so that a collector that hangs does not delay the end."""
    sending = threading.Thread(target=processor.force_flush, name="last spans", daemon=True)
    sending.start()
    sending.join(LAST_SECONDS)


def heard(traceparent: str | None) -> None:
    """Return the trace that the request is part of, for events in it without one."""
    if is_on():
        _incoming.set(traceparent if traceparent and _FORM.fullmatch(traceparent) else None)


def begin(name: str, parent: str | None, **attributes: str | int) -> Span:
    """Begin a span below that of ``parent`` (a ``traceparent``), or with a trace of its own; `end` must follow."""
    tracer = _State.tracer
    if tracer is None:
        raise RuntimeError("this process makes no spans")
    named = {f"sluice.{key}": value for key, value in attributes.items() if value not in {None, ""}}
    return tracer.start_span(name, context=_context(parent), attributes=named)


def end(spans: Sequence[Span], error: BaseException | str | None = None) -> None:
    """End the spans, as failed ones with an ``error``."""
    if spans and error is not None:
        from opentelemetry.trace import StatusCode

        for span in spans:
            span.set_status(StatusCode.ERROR, str(error))
    for span in spans:
        span.end()


def text_of(span: Span) -> str:
    """Return the ``traceparent`` that makes other spans children of this one."""
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"


def trace_of(event: Event) -> str | None:
    """Return the event's ``traceparent``, as received."""
    found = event.extensions.get(TRACEPARENT)
    return found if isinstance(found, str) else None


@contextmanager
def receiving(listener: str, events: Sequence[Event]) -> Iterator[Sequence[Event]]:
    """Make spans for accepting and journalling the events; events without a trace get that of their first span."""
    if not is_on():
        yield events
        return
    spans: list[Span] = []
    traced: list[Event] = []
    for event in events:
        carried = trace_of(event) or _incoming.get()
        named = {"event_id": event.id, "source": event.source, "type": event.type, "listener": listener}
        span = begin("sluice receive", carried, **named)
        spans += [span, begin("sluice journal", text_of(span), event_id=event.id)]
        if trace_of(event) is None:
            with_trace = {**event.extensions, TRACEPARENT: carried or text_of(span)}
            traced.append(event.model_copy(update={"extensions": with_trace}))
        else:
            traced.append(event)
    error: BaseException | None = None
    try:
        yield traced
    except BaseException as caught:
        error = caught
        raise
    finally:
        end(list(reversed(spans)), error)


def _context(parent: str | None) -> Context:
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({TRACEPARENT: parent} if parent else {}, Context())
