"""Commands about the machine that an installation runs on."""
