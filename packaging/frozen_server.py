"""The server as PyInstaller sees it."""

from sccache_py.server.app import main

raise SystemExit(main())
