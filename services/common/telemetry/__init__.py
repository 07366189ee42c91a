"""Telemetry for OpenTelemetry."""
