"""Configuration: environment and YAML adapted into the values of the domain."""
