"""Client and gateway agents on the kernel's own WireGuard, whatever kernel this machine has: in an emulated one."""
