"""The packet path of a gateway: parse, judge, write back; no I/O but the TUN, no lock, no network."""
