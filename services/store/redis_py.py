"""redis-py without what it imports in vain: `services.store` imports this before anything of redis-py."""

import sys
from typing import Final

_METRICS: Final = "opentelemetry.sdk.metrics"

if _METRICS not in sys.modules and "redis" not in sys.modules:
    # redis-py imports OpenTelemetry's metrics where they are installed, in case it is to measure: a fourteenth of the
    # processor time of `sluice status`, and memory in every process. Sluice never has it measure.
    sys.modules[_METRICS] = None  # type: ignore[assignment]
    try:
        import redis.asyncio  # noqa: F401 - for what comes after
    finally:
        del sys.modules[_METRICS]
