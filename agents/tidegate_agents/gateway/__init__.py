"""The agent of a gateway: it reconciles WireGuard, routes, rules and nftables, and keeps the forwarder up."""
