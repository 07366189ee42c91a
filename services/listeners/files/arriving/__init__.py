"""From files that were found to events: complete or not yet, known or new."""
