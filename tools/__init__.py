"""The simulator's command, the chaos script, the benchmark and the local launcher; nothing imports these."""
