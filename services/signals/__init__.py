"""The resumer: applies signals to waiting runs, each once and in order, and publishes their outcomes."""
