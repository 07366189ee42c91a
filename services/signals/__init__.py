"""The resumer: signals become resumed runs, each once, in order, and with an outcome that is told."""
