"""Contracts of files in YAML: the Data Package standard, Sluice's own keys, and where contracts are found."""
