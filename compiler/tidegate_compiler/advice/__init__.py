"""What would have allowed a packet that is denied: the denies that decide, the policies that nearly allow it, and the
smallest changes of the YAML that would, each proven by compiling it.
"""
