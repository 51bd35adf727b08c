"""What runs on the hosts: it reads bundles, reconciles the machine, and on a gateway judges packets."""
