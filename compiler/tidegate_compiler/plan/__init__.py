"""Two inventories in, what the change does out: objects, bundles, and access gained and lost, exactly.

source -> objects, bundles, access -> limits -> plan -> text, json, markdown
"""
