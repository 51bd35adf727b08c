"""Who may ask what: tokens, sessions, forgery, limits, and the headers of every answer.

Everything here runs before a room sees a request, and refuses unless something says otherwise.
"""
