"""The git repository that is the only source of truth, spoken to in plumbing alone: no checkout, no index, no hooks.

exchange     what a command is given and prints, bounded
process      one git command: its environment, its limits, its errors
objects      a long-lived reader of objects and refs
trees      files in a tree -> the same tree with some of them changed
pack       new objects, written in one go
refs         a branch moved by compare-and-swap, and the lock that a killed git leaves
remote       the branch of another repository: push first, then move; a branch per change
repository   all of it, as what the inventory needs
"""
