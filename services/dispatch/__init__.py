"""From decisions to flow runs: reads the dispatch queues, creates runs in bulk and announces them."""
