"""The whole story once, unattended, on a home of its own; its parts drive the end-to-end tests too."""
