"""What tests share: real servers, waiting without sleeping, and writers in other processes."""
