"""The contracts between Tidegate's parts: file formats, wire records, and the one meaning of a policy.

Imports no other Tidegate package, so that every host has it whatever else it runs.
"""

__version__ = "0.1.0"
