"""What files must look like, in YAML: the Data Package standard and our keys, and where the files with it lie."""
