"""Configuration: turns environment and YAML into frozen values."""
