"""What a job is and how it runs, in one process or as a leader and workers."""
