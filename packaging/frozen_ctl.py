"""The command line as PyInstaller sees it."""

from sccache_py.client.cli import main

raise SystemExit(main())
