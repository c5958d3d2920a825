/* Preloaded with observe.c: records what was looked at by functions that also tell when a file was changed. */

#define _GNU_SOURCE
#include "observe_look.h"
#include "observe_next.h"
#include "observe_record.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>

int
looked_at(int dir, const char *path, const void *caller, int result)
{
	record_look(result < 0 ? errno : 0, dir, path, is_plugin(caller) ? BY_PLUGIN : BY_PROGRAM);
	return result;
}

int
looked_at_open(int fd, const char *path, const void *caller, enum asker by, int result)
{
	if (!result && is_plugin(caller) && (!path || !*path))
		record_open_look(fd, by);
	return result;
}

/* what tells when a file was changed */
#define LOOKED(dir, path, name, params, args) \
	OURS(int, name, params) \
	{ \
		NEXT(int, name, params, -1) \
		return looked_at(dir, path, __builtin_return_address(0), real args); \
	}

#define STAT(name) LOOKED(AT_FDCWD, path, name, (const char *path, void *st), (path, st))
/* with AT_EMPTY_PATH there is no path */
#define LOOKED_AT(by, name, params, args) \
	OURS(int, name, params) \
	{ \
		NEXT(int, name, params, -1) \
		int result = looked_at(dir, path, __builtin_return_address(0), real args); \
		return looked_at_open(dir, path, __builtin_return_address(0), by, result); \
	}

#define STATAT(name) LOOKED_AT(BY_PLUGIN, name, (int dir, const char *path, void *st, int flags), (dir, path, st, flags))
/* what a program compiled with glibc before 2.33 calls */
#define XSTAT(name) LOOKED(AT_FDCWD, path, name, (int version, const char *path, void *st), (version, path, st))
#define XSTATAT(name) LOOKED_AT(BY_PLUGIN, name, (int version, int dir, const char *path, void *st, int flags), \
	    (version, dir, path, st, flags))

#define LOOKED_AT_OPEN(name, params, args) \
	OURS(int, name, params) \
	{ \
		NEXT(int, name, params, -1) \
		return looked_at_open(fd, NULL, __builtin_return_address(0), BY_PLUGIN, real args); \
	}

STAT(stat)
STAT(stat64)
STAT(lstat)
STAT(lstat64)
STATAT(fstatat)
STATAT(fstatat64)
XSTAT(__xstat)
XSTAT(__xstat64)
XSTAT(__lxstat)
XSTAT(__lxstat64)
XSTATAT(__fxstatat)
XSTATAT(__fxstatat64)
LOOKED_AT_OPEN(fstat, (int fd, void *st), (fd, st))
LOOKED_AT_OPEN(fstat64, (int fd, void *st), (fd, st))
LOOKED_AT_OPEN(__fxstat, (int version, int fd, void *st), (version, fd, st))
LOOKED_AT_OPEN(__fxstat64, (int version, int fd, void *st), (version, fd, st))
/* Rust's library asks so for the size of a file that it is about to read */
LOOKED_AT(BY_READER, statx, (int dir, const char *path, int flags, unsigned mask, void *st), (dir, path, flags, mask, st))
