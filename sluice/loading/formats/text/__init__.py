"""Other text formats: JSON, XML and fixed width; the encodings of all text."""
