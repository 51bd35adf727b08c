"""The receiver: takes a host's releases from NATS JetStream into the directory that its agent watches."""
