"""Other formats that are text: JSON, XML, fixed width, and the encodings of all."""
