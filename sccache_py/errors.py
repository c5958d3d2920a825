"""One exception class per boundary; each is caught by name at one place."""


class FormatError(Exception):
    """Bytes that are not what they should be: a stored value, a record, a frame's payload."""


class StoreError(Exception):
    """The store could not do it.  It costs a hit, never a build."""


class StoreBusy(StoreError):
    """Not now: another process holds the lock, or the disk stands still."""


class StoreLate(StoreBusy):
    """It was begun, and may be done yet."""
