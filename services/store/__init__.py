"""Everything that Sluice keeps in Redis; each module owns its keys."""

import importlib
import sys

_METRICS = "opentelemetry.sdk.metrics"

if _METRICS not in sys.modules and "redis" not in sys.modules:
    # redis-py imports OpenTelemetry's metrics where they are installed, which takes a fourteenth of the processor time
    # of `sluice status`, and memory in every process. Sluice does not use them.
    sys.modules[_METRICS] = None  # type: ignore[assignment]
    try:
        importlib.import_module("redis.asyncio")
    finally:
        del sys.modules[_METRICS]
