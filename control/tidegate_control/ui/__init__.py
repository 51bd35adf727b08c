"""The web UI: pages made on the server, which work with scripts off and ask nothing of any other host.

routes      every page: its path, what it needs, who answers
visit       one request, and how a page or an error comes of it
kinds       the kinds of object and their fields, from the schemas
forms       an object's fields as text, and back
places      diagnostics beside the fields they are about
listing     filter, sort, page
planview    a plan in words; recorded   what recorded flows say, in words
drawing     the time chart
pages/      what each page shows
templates/  how it looks; static/ holds the style, the script and the icon
"""
