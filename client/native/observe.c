/* Preloaded into a compiler and all that it starts: records which files they read,
 * looked for in vain, listed and changed.  Every function here calls the one
 * that it stands in front of, with the caller's arguments, and hands back its
 * result and errno.  What is written where is docs/protocol.md, section 4; what
 * processes leave is in observe_process.c, and what they ask in observe_ask.c.
 *
 *	cc -std=c11 -O2 -fPIC -shared -fvisibility=hidden observe*.c -o libsccache-observe.so -ldl
 *
 * Each variant of a function needs its own line, since the C library's functions
 * call one another without coming by here (scandir opens a directory, mkstemp a
 * file).  Not seen: system calls made without the C library, and the
 * C library's own files (locale, gconv, nss, ld.so). */

#define _GNU_SOURCE
#include "observe_look.h"
#include "observe_next.h"
#include "observe_open.h"
#include "observe_record.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>

/* musl before 1.2.4 makes macros of these; its programs call the functions all the same */
#undef mkstemp64
#undef mkstemps64
#undef mkostemp64
#undef mkostemps64

/* these are kept out of line: the interposers are many */
static __attribute__((noinline)) int
noted(char kind, int dir, const char *path, int result)
{
	record_path(kind, result < 0 ? errno : 0, dir, path);
	return result;
}

static __attribute__((noinline)) int
noted_two(char kind, int dir, const char *path, int dir2, const char *path2, int result)
{
	record_paths(kind, result < 0 ? errno : 0, dir, path, dir2, path2);
	return result;
}

static __attribute__((noinline)) int
noted_link(const char *target, int dir, const char *path, int result)
{
	record_link(result < 0 ? errno : 0, target, dir, path);
	return result;
}

static __attribute__((noinline)) void *
noted_pointer(char kind, const char *path, void *result)
{
	record_path(kind, result ? 0 : errno, AT_FDCWD, path);
	return result;
}

/* a function that returns -1 on failure, recorded with one path */
#define NOTED(kind, dir, path, name, params, args) \
	OURS(int, name, params) \
	{ \
		NEXT(int, name, params, -1) \
		return noted(kind, dir, path, real args); \
	}

/* a function that returns NULL on failure */
#define NOTED_POINTER(kind, path, name, params, args) \
	OURS(void *, name, params) \
	{ \
		NEXT(void *, name, params, NULL) \
		return noted_pointer(kind, path, real args); \
	}

/* ---- look, do not touch ---- */

NOTED('S', AT_FDCWD, path, statfs, (const char *path, void *st), (path, st))
NOTED('S', AT_FDCWD, path, statfs64, (const char *path, void *st), (path, st))
NOTED('S', AT_FDCWD, path, statvfs, (const char *path, void *st), (path, st))
NOTED('S', AT_FDCWD, path, statvfs64, (const char *path, void *st), (path, st))
NOTED('S', AT_FDCWD, path, access, (const char *path, int mode), (path, mode))
NOTED('S', AT_FDCWD, path, eaccess, (const char *path, int mode), (path, mode))
NOTED('S', AT_FDCWD, path, euidaccess, (const char *path, int mode), (path, mode))
NOTED('S', dir, path, faccessat, (int dir, const char *path, int mode, int flags), (dir, path, mode, flags))

OURS(int, chdir, (const char *path))
{
	NEXT(int, chdir, (const char *), -1)
	int result = real(path);

	/* a relative path no longer means what it did */
	return noted('S', AT_FDCWD, result ? path : ".", result);
}

/* a function that returns a size, and -1 on failure */
#define NOTED_SIZE(dir, path, name, params, args) \
	OURS(ssize_t, name, params) \
	{ \
		NEXT(ssize_t, name, params, -1) \
		ssize_t result = real args; \
		noted('S', dir, path, result < 0 ? -1 : 0); \
		return result; \
	}

NOTED_SIZE(AT_FDCWD, path, readlink, (const char *path, char *to, size_t size), (path, to, size))
NOTED_SIZE(dir, path, readlinkat, (int dir, const char *path, char *to, size_t size), (dir, path, to, size))
NOTED_SIZE(AT_FDCWD, path, getxattr, (const char *path, const char *name, void *to, size_t size),
    (path, name, to, size))
NOTED_SIZE(AT_FDCWD, path, lgetxattr, (const char *path, const char *name, void *to, size_t size),
    (path, name, to, size))
NOTED_SIZE(AT_FDCWD, path, listxattr, (const char *path, char *to, size_t size), (path, to, size))
NOTED_SIZE(AT_FDCWD, path, llistxattr, (const char *path, char *to, size_t size), (path, to, size))
/* of a relative path it tells the working directory, too */
#define RESOLVED(name, params, args) \
	OURS(void *, name, params) \
	{ \
		NEXT(void *, name, params, NULL) \
		if (path && *path != '/') \
			told_place(__builtin_return_address(0)); \
		return noted_pointer('S', path, real args); \
	}

RESOLVED(realpath, (const char *path, char *to), (path, to))
#ifdef __GLIBC__
NOTED_SIZE(AT_FDCWD, path, __readlink_chk, (const char *path, char *to, size_t size, size_t room),
    (path, to, size, room))
NOTED_SIZE(dir, path, __readlinkat_chk, (int dir, const char *path, char *to, size_t size, size_t room),
    (dir, path, to, size, room))
RESOLVED(__realpath_chk, (const char *path, char *to, size_t room), (path, to, room))
RESOLVED(canonicalize_file_name, (const char *path), (path))
#endif

/* ---- directories ---- */

NOTED('D', AT_FDCWD, path, scandir, (const char *path, void *names, void *filter, void *compare),
    (path, names, filter, compare))
NOTED('D', AT_FDCWD, path, scandir64, (const char *path, void *names, void *filter, void *compare),
    (path, names, filter, compare))
#ifdef __GLIBC__
NOTED('D', dir, path, scandirat, (int dir, const char *path, void *names, void *filter, void *compare),
    (dir, path, names, filter, compare))
NOTED('D', dir, path, scandirat64, (int dir, const char *path, void *names, void *filter, void *compare),
    (dir, path, names, filter, compare))
#endif
/* of a tree only its root: no compiler walks one with these */
NOTED('D', AT_FDCWD, path, ftw, (const char *path, void *visit, int fds), (path, visit, fds))
NOTED('D', AT_FDCWD, path, ftw64, (const char *path, void *visit, int fds), (path, visit, fds))
NOTED('D', AT_FDCWD, path, nftw, (const char *path, void *visit, int fds, int flags), (path, visit, fds, flags))
NOTED('D', AT_FDCWD, path, nftw64, (const char *path, void *visit, int fds, int flags), (path, visit, fds, flags))

OURS(void *, fdopendir, (int fd))
{
	NEXT(void *, fdopendir, (int), NULL)
	void *result = real(fd);

	if (result)
		record_descriptor('D', 0, fd);
	return result;
}

/* of a directory that was opened as if it were a file */
OURS(ssize_t, getdents64, (int fd, void *to, size_t size))
{
	NEXT(ssize_t, getdents64, (int, void *, size_t), -1)
	ssize_t result = real(fd, to, size);

	if (result > 0)
		record_descriptor('D', 0, fd);
	return result;
}

#ifdef __GLIBC__
#define FTS_OPEN(name) \
	OURS(void *, name, (char *const *paths, int flags, void *compare)) \
	{ \
		NEXT(void *, name, (char *const *, int, void *), NULL) \
		void *result = real(paths, flags, compare); \
		for (char *const *p = paths; result && *p; p++) \
			record_path('D', 0, AT_FDCWD, *p); \
		return result; \
	}

FTS_OPEN(fts_open)
FTS_OPEN(fts64_open)
#endif

/* the directory of the first wildcard; those of later ones are not known here */
static void
record_pattern(const char *pattern)
{
	char directory[PATH_MAX];
	size_t n = strcspn(pattern, "*?[{\\");

	while (n && pattern[n - 1] != '/')
		n--;
	if (n >= sizeof(directory))
		return;
	memcpy(directory, pattern, n);
	directory[n] = 0;
	record_path('D', 0, AT_FDCWD, n ? directory : ".");
}

#define GLOB(name) \
	OURS(int, name, (const char *pattern, int flags, void *failed, void *to)) \
	{ \
		NEXT(int, name, (const char *, int, void *, void *), -1) \
		record_pattern(pattern); \
		return real(pattern, flags, failed, to); \
	}

GLOB(glob)
GLOB(glob64)

/* ---- changes ---- */

#define RENAME(name) \
	OURS(int, name, (const char *from, const char *to)) \
	{ \
		NEXT(int, name, (const char *, const char *), -1) \
		return noted_two('M', AT_FDCWD, from, AT_FDCWD, to, real(from, to)); \
	}

RENAME(rename)
RENAME(link)

OURS(int, renameat, (int dir, const char *from, int dir2, const char *to))
{
	NEXT(int, renameat, (int, const char *, int, const char *), -1)
	return noted_two('M', dir, from, dir2, to, real(dir, from, dir2, to));
}

OURS(int, renameat2, (int dir, const char *from, int dir2, const char *to, unsigned flags))
{
	NEXT(int, renameat2, (int, const char *, int, const char *, unsigned), -1)
	return noted_two('M', dir, from, dir2, to, real(dir, from, dir2, to, flags));
}

OURS(int, linkat, (int dir, const char *from, int dir2, const char *to, int flags))
{
	NEXT(int, linkat, (int, const char *, int, const char *, int), -1)
	return noted_two('M', dir, from, dir2, to, real(dir, from, dir2, to, flags));
}

OURS(int, symlink, (const char *target, const char *path))
{
	NEXT(int, symlink, (const char *, const char *), -1)
	return noted_link(target, AT_FDCWD, path, real(target, path));
}

OURS(int, symlinkat, (const char *target, int dir, const char *path))
{
	NEXT(int, symlinkat, (const char *, int, const char *), -1)
	return noted_link(target, dir, path, real(target, dir, path));
}

NOTED('U', AT_FDCWD, path, unlink, (const char *path), (path))
NOTED('U', dir, path, unlinkat, (int dir, const char *path, int flags), (dir, path, flags))
NOTED('U', AT_FDCWD, path, rmdir, (const char *path), (path))
NOTED('U', AT_FDCWD, path, remove, (const char *path), (path))
NOTED('K', AT_FDCWD, path, mkdir, (const char *path, mode_t mode), (path, mode))
NOTED('K', dir, path, mkdirat, (int dir, const char *path, mode_t mode), (dir, path, mode))
NOTED('T', AT_FDCWD, path, truncate, (const char *path, off_t size), (path, size))
NOTED('T', AT_FDCWD, path, truncate64, (const char *path, int64_t size), (path, size))
NOTED('T', AT_FDCWD, path, chmod, (const char *path, mode_t mode), (path, mode))
NOTED('T', AT_FDCWD, path, lchmod, (const char *path, mode_t mode), (path, mode))
NOTED('T', dir, path, fchmodat, (int dir, const char *path, mode_t mode, int flags), (dir, path, mode, flags))
NOTED('T', AT_FDCWD, path, chown, (const char *path, uid_t uid, gid_t gid), (path, uid, gid))
NOTED('T', AT_FDCWD, path, lchown, (const char *path, uid_t uid, gid_t gid), (path, uid, gid))
NOTED('T', dir, path, fchownat, (int dir, const char *path, uid_t uid, gid_t gid, int flags),
    (dir, path, uid, gid, flags))
NOTED('T', AT_FDCWD, path, utime, (const char *path, const void *times), (path, times))
NOTED('T', AT_FDCWD, path, utimes, (const char *path, const void *times), (path, times))
NOTED('T', AT_FDCWD, path, lutimes, (const char *path, const void *times), (path, times))
NOTED('T', dir, path, futimesat, (int dir, const char *path, const void *times), (dir, path, times))
NOTED('T', dir, path, utimensat, (int dir, const char *path, const void *times, int flags),
    (dir, path, times, flags))
NOTED('T', AT_FDCWD, path, setxattr, (const char *path, const char *name, const void *value, size_t size, int flags),
    (path, name, value, size, flags))
NOTED('T', AT_FDCWD, path, lsetxattr, (const char *path, const char *name, const void *value, size_t size, int flags),
    (path, name, value, size, flags))
NOTED('T', AT_FDCWD, path, removexattr, (const char *path, const char *name), (path, name))
NOTED('T', AT_FDCWD, path, lremovexattr, (const char *path, const char *name), (path, name))

/* the template has become the name when it is recorded */
NOTED('W', AT_FDCWD, path, mkstemp, (char *path), (path))
NOTED('W', AT_FDCWD, path, mkstemp64, (char *path), (path))
NOTED('W', AT_FDCWD, path, mkostemp, (char *path, int flags), (path, flags))
NOTED('W', AT_FDCWD, path, mkostemp64, (char *path, int flags), (path, flags))
NOTED('W', AT_FDCWD, path, mkstemps, (char *path, int suffix), (path, suffix))
NOTED('W', AT_FDCWD, path, mkstemps64, (char *path, int suffix), (path, suffix))
NOTED('W', AT_FDCWD, path, mkostemps, (char *path, int suffix, int flags), (path, suffix, flags))
NOTED('W', AT_FDCWD, path, mkostemps64, (char *path, int suffix, int flags), (path, suffix, flags))
NOTED_POINTER('K', path, mkdtemp, (char *path), (path))

/* ---- without a wrapper of the C library ---- */

/* How Rust calls statx where the C library has none, and an allocator opens a file before
 * open is fit for use.  With the most arguments there can be: one not given is a register
 * or a word of the caller's frame, read and handed on. */
OURS(long, syscall, (long number, long a, long b, long c, long d, long e, long f))
{
	NEXT(long, syscall, (long, long, long, long, long, long, long), -1)

#define CALLER __builtin_return_address(0)
#define RESULT ((int)real(number, a, b, c, d, e, f))
#define PATH(x) ((const char *)(x))
	switch (number) {
#ifdef SYS_open
	/* the calls that newer machines do not have */
	case SYS_open:
		return opened(AT_FDCWD, PATH(a), (int)b, RESULT, CALLER);
	case SYS_creat:
		return noted('W', AT_FDCWD, PATH(a), RESULT);
	case SYS_stat:
	case SYS_lstat:
		return looked_at(AT_FDCWD, PATH(a), CALLER, RESULT);
	case SYS_access:
	case SYS_readlink:
		return noted('S', AT_FDCWD, PATH(a), RESULT);
	case SYS_rename:
	case SYS_link:
		return noted_two('M', AT_FDCWD, PATH(a), AT_FDCWD, PATH(b), RESULT);
	case SYS_symlink:
		return noted_link(PATH(a), AT_FDCWD, PATH(b), RESULT);
	case SYS_unlink:
	case SYS_rmdir:
		return noted('U', AT_FDCWD, PATH(a), RESULT);
	case SYS_mkdir:
		return noted('K', AT_FDCWD, PATH(a), RESULT);
	case SYS_chmod:
		return noted('T', AT_FDCWD, PATH(a), RESULT);
#endif
	case SYS_openat:
		return opened((int)a, PATH(b), (int)c, RESULT, CALLER);
#ifdef SYS_openat2
	case SYS_openat2:
		/* a pointer to 64 bits of flags, if we believe its size */
		return opened((int)a, PATH(b), c && d >= 8 ? (int)*(uint64_t *)c : O_RDWR, RESULT, CALLER);
#endif
	case SYS_fstat:
		return looked_at_open((int)a, NULL, CALLER, BY_PLUGIN, RESULT);
#ifdef SYS_newfstatat
	case SYS_newfstatat:
		return looked_at_open((int)a, PATH(b), CALLER, BY_PLUGIN, looked_at((int)a, PATH(b), CALLER, RESULT));
#endif
#ifdef SYS_statx
	case SYS_statx:
		return looked_at_open((int)a, PATH(b), CALLER, BY_READER, looked_at((int)a, PATH(b), CALLER, RESULT));
#endif
#ifdef SYS_faccessat2
	case SYS_faccessat2:
#endif
	case SYS_faccessat:
	case SYS_readlinkat:
		return noted('S', (int)a, PATH(b), RESULT);
#ifdef SYS_renameat
	case SYS_renameat:
#endif
	case SYS_renameat2:
	case SYS_linkat:
		return noted_two('M', (int)a, PATH(b), (int)c, PATH(d), RESULT);
	case SYS_symlinkat:
		return noted_link(PATH(a), (int)b, PATH(c), RESULT);
	case SYS_unlinkat:
		return noted('U', (int)a, PATH(b), RESULT);
	case SYS_mkdirat:
		return noted('K', (int)a, PATH(b), RESULT);
	case SYS_fchmodat:
	case SYS_fchownat:
	case SYS_utimensat:
		return noted('T', (int)a, PATH(b), RESULT);
	case SYS_truncate:
		return noted('T', AT_FDCWD, PATH(a), RESULT);
	case SYS_execve:
		record_path('X', 0, AT_FDCWD, PATH(a));
		return noted('x', AT_FDCWD, PATH(a), RESULT);
	case SYS_getcwd:
		told_place(CALLER);
		break;
#ifdef SYS_getdents
	case SYS_getdents:
#endif
	case SYS_getdents64:
		record_descriptor('D', 0, (int)a);
		break;
	case SYS_clock_gettime:
	case SYS_gettimeofday:
#ifdef SYS_time
	case SYS_time:
#endif
		if (is_plugin(CALLER))
			record_clock();
		break;
	case SYS_socket:
	case SYS_connect:
#ifdef SYS_io_uring_setup
	case SYS_io_uring_setup:        /* opens files without a call for each */
#endif
		record_text('N', 0, "syscall");
		break;
	}
	/* a jump: vfork and clone return twice, and the child would find our frame overwritten */
	return real(number, a, b, c, d, e, f);
#undef RESULT
#undef CALLER
#undef PATH
}
