"""Editing an inventory in place: text in, text out, and everything that was not meant stays byte for byte.

spans      text -> where every key and value begins and ends
writing    values -> how they are written, in the style of their neighbours
editor     one file: append, remove; proves that nothing else changed its value
replacing  one file: a value, an item or a field replaced where it stands
part       some objects of a large file, proved by the fast reader
survey     an inventory -> its names, addresses in use, and references
change     {path: bytes} before and after, and the errors that are new
add, update, remove, form (`fmt`), wgread + wgimport + imported (`import`): the commands' pure halves
store, edges, options, cli, addcli, importcli: files, arguments, what is printed
"""
