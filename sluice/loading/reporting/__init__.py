"""Reports of loads, as data and as Markdown."""
