"""Events: the ring that the datapath fills and the flusher that empties it."""
