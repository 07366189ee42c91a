"""Tables, times and common options on a terminal."""
