"""The inventory in git, as the API and the UI read and write it: every write is one commit, or nothing.

errors     why a write was not made
model      authors, objects, outcomes
snapshot   one commit: files, diagnostics, objects
sheets     the objects of one file, read when somebody asks
shape      fields that cannot be written at all, refused by name
message    a commit's author and message, safe against whatever is in them
service    create, update, delete, revert, history
"""
