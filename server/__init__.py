"""The long-running half: everything that acts on files, processes and sockets."""

# Imported as `server` from the repository's root it would be a second set of modules beside this one.
assert __name__ == "sccache_py.server"
