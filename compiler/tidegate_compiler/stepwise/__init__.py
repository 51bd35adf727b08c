"""From the last inventory that was right, in steps of a few clients: what a run does when little changed.

The invariant: whatever comes out is what the whole run says of the same files, or nothing comes out, and the
whole run follows. Nothing here knows what an inventory means. The ordinary functions read, check and resolve
a *part* of it: the gateways that some changed client lists, on either side, with all of their clients, and
the policies and groups that concern them. What has to be known of all the others is kept in the cache when a
whole run ends (`record`):

    files, by digest         only files of clients may differ, and they must be right beyond doubt (`step`)
    names, keys, addresses   of a client that is new or changed, none may be somebody else's
    names that are referred to by groups, policies and tests: none of these may go
    warnings                 the same before and after, which `step.are_warnings_alike` shows
    clients by gateways      so that the part has all clients of its gateways (`part`)

A set of names, keys or addresses is kept as checksums: two may be taken for one, and then the whole run
follows, too.
"""
