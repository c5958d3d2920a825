/* Preloaded with observe.c: records what was looked at by functions that also tell when a file was changed. */

#define _GNU_SOURCE
#include "observe_look.h"
#include "observe_next.h"
#include "observe_record.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stddef.h>
#include <string.h>
#include <unwind.h>

int
looked_at(int dir, const char *path, const void *caller, int result)
{
	record_look(result < 0 ? errno : 0, dir, path, is_plugin(caller) ? BY_PLUGIN : BY_PROGRAM);
	told_of_kernel(result < 0 ? errno : 0, path, caller);
	return result;
}

int
looked_at_open(int fd, const char *path, const void *caller, enum asker by, int result)
{
	if (!result && is_plugin(caller) && (!path || !*path))
		record_open_look(fd, by);
	return result;
}

void
told_place(const void *caller)
{
	if (is_plugin(caller))
		record_look(0, AT_FDCWD, "/proc/self/cwd", BY_PLUGIN);
}

void
told_machine(const char *path, const void *caller)
{
	int saved = errno;

	if (is_plugin(caller))
		record_text('C', 0, path);
	errno = saved;
}

/* A macro may write down what the kernel tells of the machine; a compiler only goes by it. */
void
told_of_kernel(int error, const char *path, const void *caller)
{
	static const char *const places[] = {"/proc", "/sys", "/dev"};

	for (size_t i = 0; error != EFAULT && path && i < sizeof(places) / sizeof(*places); i++) {
		size_t n = strlen(places[i]);

		if (!strncmp(path, places[i], n) && (!path[n] || path[n] == '/'))
			told_machine(path, caller);
	}
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

/* ---- by which functions of a plugin ---- */

enum { MOST_CALLS = 8 };

/* The calls that led here, innermost first, where the plugin begins and until it ends:
 * Rust asks by the same system call whether a path is there and when it was changed. */
struct way {
	const char *library;
	uintptr_t base, at[MOST_CALLS];
	int calls;
};

static _Unwind_Reason_Code
pass(struct _Unwind_Context *context, void *to)
{
	NEXT(uintptr_t, _Unwind_GetIP, (struct _Unwind_Context *), _URC_END_OF_STACK)
	uintptr_t code = real(context) - 1;  /* where it returns to may be the next function's */
	struct way *way = to;
	Dl_info found_in;

	if (!is_plugin((const void *)code))
		return way->calls ? _URC_END_OF_STACK : _URC_NO_REASON;  /* we come first */
	if (!dladdr((const void *)code, &found_in) || (way->calls && (uintptr_t)found_in.dli_fbase != way->base))
		return _URC_END_OF_STACK;
	way->library = found_in.dli_fname;
	way->base = (uintptr_t)found_in.dli_fbase;
	way->at[way->calls++] = code - way->base;
	return way->calls < MOST_CALLS ? _URC_NO_REASON : _URC_END_OF_STACK;
}

/* nothing is passed where the program has no unwinder: rustc has */
static int
pass_all(struct way *way)
{
	NEXT(int, _Unwind_Backtrace, (_Unwind_Reason_Code (*)(struct _Unwind_Context *, void *), void *), 0)
	real(pass, way);
	return way->calls;
}

static __attribute__((noinline)) void
looked_by_plugin(int dir, const char *path)
{
	int saved = errno;
	struct way way = {.calls = 0};

	if (pass_all(&way))
		record_look_from(dir, path, way.library, way.at, (size_t)way.calls);
	else
		record_look(0, dir, path, BY_PLUGIN);
	errno = saved;
}

/* Rust's library asks so for all that it wants to know of a path, and for the size of a file that it is about to read */
OURS(int, statx, (int dir, const char *path, int flags, unsigned mask, void *st))
{
	NEXT(int, statx, (int, const char *, int, unsigned, void *), -1)
	int result = real(dir, path, flags, mask, st);

	if (result || !path || !*path || !is_plugin(__builtin_return_address(0)))
		looked_at(dir, path, __builtin_return_address(0), result);
	else {
		looked_by_plugin(dir, path);
		told_of_kernel(0, path, __builtin_return_address(0));
	}
	return looked_at_open(dir, path, __builtin_return_address(0), BY_READER, result);
}
