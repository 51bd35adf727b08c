"""`tidegate doctor`: what of this host would keep an agent from its work, and how to mend it. It changes nothing.

read.py     asks kernel, tools and files                   the only input and output
facts.py    what was found, as values
checks/     facts -> findings, each with a name, a level, what is so, and how to mend it
cli.py      prints them
"""
