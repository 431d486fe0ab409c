"""Where the work of a batch runs: worker processes on this machine, or actors of a Ray cluster."""
