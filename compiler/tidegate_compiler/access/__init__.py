"""`tidegate access`: who reaches what, surveyed once and told as a table, as JSON, or as a picture."""
