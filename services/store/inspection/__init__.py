"""Inspects the data under the keys of Sluice and moves unreadable data to quarantine."""
