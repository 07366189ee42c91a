"""Looking at files: scans of directories, and one look at one file."""
