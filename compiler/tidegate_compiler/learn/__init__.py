"""What recorded traffic says of a policy: what a candidate would break, and which policy people really need."""
