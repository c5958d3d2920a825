"""What the user calls: the native client's sources, the Python client, the command line."""

# Imported as `client` from the repository's root it would be a second set of modules beside this one.
assert __name__ == "sccache_py.client"
