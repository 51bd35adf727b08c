"""Releases on NATS JetStream: how they are laid out there (layout), and the connection of both ends (link)."""
