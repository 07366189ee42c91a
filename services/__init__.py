"""The running parts of Sluice; `services.app` joins them, `services.cli` is how people reach them."""
