"""Inventory in, bundles out: load -> check -> resolve -> render, a pure core with I/O at its edges."""
