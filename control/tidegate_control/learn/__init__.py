"""`tidegate replay` and `tidegate suggest`, and the same for the API and the pages: flows of files and stores."""
