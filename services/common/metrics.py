"""What Sluice counts and times, each metric named once; in Prometheus' format."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY: Final = CollectorRegistry(auto_describe=True)
"""Sluice's own: Prometheus' default one would bring the metrics of any library that registers some."""

_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

# Messages that a listener took in and may acknowledge: journalled, known already, or kept as dead letters.
received = Counter("sluice_messages_received", "Messages taken in", ["listener"], registry=REGISTRY)

# Messages among them that were refused and kept as dead letters; the code is the dead letter's.
rejected = Counter("sluice_messages_rejected", "Messages kept as dead letters", ["listener", "code"], registry=REGISTRY)

# From handing a batch on until the journal held it, retries not included.
emit_seconds = Histogram(
    "sluice_emit_seconds", "Time for the journal to take one batch", ["listener"], buckets=_SECONDS, registry=REGISTRY
)

# Attempts that failed because Redis (or what lies behind the sink) was away or full.
retries = Counter("sluice_listener_retries", "Attempts that will be made again", ["listener"], registry=REGISTRY)

# Entries that another consumer had read and not acknowledged before its time ran out.
claimed = Counter("sluice_stream_claimed", "Entries taken over from dead consumers", ["listener"], registry=REGISTRY)

# Pub/sub: times without a subscription, when what was published is gone, and how long they were.
gaps = Counter("sluice_pubsub_gaps", "Interruptions of a subscription", ["listener"], registry=REGISTRY)
gap_seconds = Counter("sluice_pubsub_gap_seconds", "Time without a subscription", ["listener"], registry=REGISTRY)

# Pub/sub: received and not journalled yet; these live in memory only.
buffered_bytes = Gauge(
    "sluice_pubsub_buffered_bytes", "Received and not yet journalled", ["listener"], registry=REGISTRY
)

# Pub/sub: messages without an id of their own that came when another listener may have been the active one.
left_to_successor = Counter(
    "sluice_pubsub_left_to_successor",
    "Messages dropped by a listener that had lost its lease",
    ["listener"],
    registry=REGISTRY,
)

# Answers of the HTTP listener.
http_answers = Counter("sluice_http_answers", "HTTP answers", ["route", "status"], registry=REGISTRY)
