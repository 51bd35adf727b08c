"""A machine with systemd as its first process, and the package installed in it for real."""
