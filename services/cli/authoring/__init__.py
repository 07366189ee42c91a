"""Commands for authors of a project: contracts, new flows and rules, the picture of the rules."""
