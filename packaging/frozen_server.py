"""The server as PyInstaller sees it: one program for all its processes."""

import sys

if sys.argv[1:2] == ["--pack"]:
    from sccache_py.server.store.pack_process import main
else:
    from sccache_py.server.app import main

raise SystemExit(main())
