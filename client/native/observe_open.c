/* Preloaded with observe.c: records what was opened, and which file or directory that was.
 *
 * A name may lead elsewhere before the compiler has ended: a link is set anew, a directory
 * renamed.  What was read is then not what lies there when the server looks. */

#define _GNU_SOURCE
#include "observe_open.h"
#include "observe_look.h"
#include "observe_next.h"
#include "observe_record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>

/* musl before 1.2.4 makes macros of these; its programs call the functions all the same */
#undef open64
#undef openat64
#undef creat64

/* not stdio.h and dirent.h: musl makes macros there, too, and to us a stream is void */
int fileno(void *stream);
int dirfd(void *stream);

#define CALLER __builtin_return_address(0)

int
opened(int dir, const char *path, int flags, int result, const void *caller)
{
	char kind = 'R';

	if ((flags & O_TMPFILE) == O_TMPFILE)
		return result;          /* has no name */
	if (flags & O_PATH)
		kind = 'S';
	else if (flags & O_DIRECTORY)
		kind = 'D';
	else if (flags & O_TRUNC || (flags & O_CREAT && flags & O_EXCL))
		kind = 'W';
	else if ((flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT)
		kind = 'B';             /* what was there before shows through */
	if (kind == 'B' && result >= 0 && (flags & (O_ACCMODE | O_APPEND)) == O_WRONLY && raw(SYS_lseek, result, 0, SEEK_END, 0, 0) == 0)
		kind = 'b';             /* nothing was there, or nothing that anybody sees */
	if (kind == 'R' || kind == 'D')
		told_of_kernel(result < 0 ? errno : 0, path, caller);
	if (result >= 0 && (kind == 'R' || kind == 'D'))
		record_opened(kind, dir, path, result);
	else
		record_path(kind, result < 0 ? errno : 0, dir, path);
	return result;
}

static int
needs_mode(int flags)
{
	return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE;
}

/* Whether it may make a file, and does not say so if it did: a lock, a database. */
static int
may_make(int flags)
{
	return (flags & (O_CREAT | O_EXCL | O_TRUNC | O_DIRECTORY | O_PATH)) == O_CREAT;
}

static int
made(int dir, const char *path, int result)
{
	record_path('S', ENOENT, dir, path);
	record_path('W', 0, dir, path);
	return result;
}

#define OPEN(name) \
	OURS(int, name, (const char *path, int flags, ...)) \
	{ \
		mode_t mode = 0; \
		NEXT(int, name, (const char *, int, ...), -1) \
		if (needs_mode(flags)) { \
			va_list ap; \
			va_start(ap, flags); \
			mode = va_arg(ap, mode_t); \
			va_end(ap); \
		} \
		int fresh = may_make(flags) ? real(path, flags | O_EXCL, mode) : -1; \
		if (fresh >= 0) \
			return made(AT_FDCWD, path, fresh); \
		return opened(AT_FDCWD, path, flags, real(path, flags, mode), CALLER); \
	}

#define OPENAT(name) \
	OURS(int, name, (int dir, const char *path, int flags, ...)) \
	{ \
		mode_t mode = 0; \
		NEXT(int, name, (int, const char *, int, ...), -1) \
		if (needs_mode(flags)) { \
			va_list ap; \
			va_start(ap, flags); \
			mode = va_arg(ap, mode_t); \
			va_end(ap); \
		} \
		int fresh = may_make(flags) ? real(dir, path, flags | O_EXCL, mode) : -1; \
		if (fresh >= 0) \
			return made(dir, path, fresh); \
		return opened(dir, path, flags, real(dir, path, flags, mode), CALLER); \
	}

#define OPEN_2(name) \
	OURS(int, name, (const char *path, int flags)) \
	{ \
		NEXT(int, name, (const char *, int), -1) \
		return opened(AT_FDCWD, path, flags, real(path, flags), CALLER); \
	}

#define OPENAT_2(name) \
	OURS(int, name, (int dir, const char *path, int flags)) \
	{ \
		NEXT(int, name, (int, const char *, int), -1) \
		return opened(dir, path, flags, real(dir, path, flags), CALLER); \
	}

OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)
#ifdef __GLIBC__
OPEN(__open)
OPEN(__open64)
OPEN_2(__open_2)
OPEN_2(__open64_2)
OPENAT_2(__openat_2)
OPENAT_2(__openat64_2)
#endif

#define CREAT(name) \
	OURS(int, name, (const char *path, mode_t mode)) \
	{ \
		NEXT(int, name, (const char *, mode_t), -1) \
		return opened(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, real(path, mode), CALLER); \
	}

CREAT(creat)
CREAT(creat64)

/* ---- streams ---- */

static char
stream_kind(const char *mode)
{
	switch (mode ? *mode : 0) {
	case 'w':
		return 'W';
	case 'r':
		/* "r,ccs=x+y" */
		return mode[strcspn(mode, "+,")] == '+' ? 'B' : 'R';
	default:
		return 'B';
	}
}

static __attribute__((noinline)) void *
opened_stream(char kind, const char *path, void *result, int (*descriptor)(void *), const void *caller)
{
	if (kind == 'R' || kind == 'D')
		told_of_kernel(result ? 0 : errno, path, caller);
	if (result && (kind == 'R' || kind == 'D'))
		record_opened(kind, AT_FDCWD, path, descriptor(result));
	else
		record_path(kind, result ? 0 : errno, AT_FDCWD, path);
	return result;
}

#define STREAM(name, params, args) \
	OURS(void *, name, params) \
	{ \
		NEXT(void *, name, params, NULL) \
		return opened_stream(stream_kind(mode), path, real args, fileno, CALLER); \
	}

STREAM(fopen, (const char *path, const char *mode), (path, mode))
STREAM(fopen64, (const char *path, const char *mode), (path, mode))
STREAM(freopen, (const char *path, const char *mode, void *file), (path, mode, file))
STREAM(freopen64, (const char *path, const char *mode, void *file), (path, mode, file))

OURS(void *, opendir, (const char *path))
{
	NEXT(void *, opendir, (const char *), NULL)
	return opened_stream('D', path, real(path), dirfd, CALLER);
}
