"""The listeners: each knows one outside world and one door, and acknowledges only what the door has taken."""
