"""Editing an inventory in place: text in, text out, and everything that was not meant stays byte for byte.

spans      text -> where every key and value begins and ends
yamlwords  values -> how they are written, in the style of their neighbours
editor     one file: append, remove; proves that nothing else changed its value
survey     an inventory -> its names, addresses in use, and references
change     {path: bytes} before and after, and the errors that are new
add, remove, form (`fmt`), wgread + wgimport (`import`): the commands' pure halves
store, cli files and arguments: the edges
"""
