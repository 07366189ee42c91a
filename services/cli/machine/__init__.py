"""Commands for operators: the machine and its disks, users of Redis, backups, the whole screen."""
