"""How a job runs on real peers: wire, keys, transport, disk, the peer process and the command line."""
