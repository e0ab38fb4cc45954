"""User code of the chaos script: jobs that no example is."""
