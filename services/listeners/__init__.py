"""The listeners: each reads one kind of source and calls one function, and acknowledges what that function accepted."""
