"""Runs and observes an installation: roles, health reports, readiness, status, metrics, retention, inspection."""
