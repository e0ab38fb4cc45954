"""Who is here, who owns a key, who leads: pure state machines without sockets, clocks or files."""
