"""The watched folder: the system's notifications, and whether they are reliable."""
