"""What a load did, as data and as markdown."""
