"""The agent of a client host: bundle in, WireGuard interface up, changes applied live."""
