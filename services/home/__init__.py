"""The home of an installation: its private folder, its credentials, and how commands find its servers."""
