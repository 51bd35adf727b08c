"""The control server's room: CRUD API, web UI and log intake over the git inventory.

It distributes configuration and stores logs; it processes no packet, decides no authorization and
controls no logging.
"""
