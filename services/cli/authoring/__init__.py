"""Commands for those who write a project: contracts, and the first files of flows and rules."""
