"""Commands for whoever operates an installation: the machine, its disks, all at a glance."""
