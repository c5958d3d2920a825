/* Preloaded with observe.c: records what is executed and loaded, and what cannot be
 * followed. */

#define _GNU_SOURCE
#include "observe_next.h"
#include "observe_record.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <link.h>
#include <netdb.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

/* ---- programs ---- */

#ifdef __GLIBC__
#define DEFAULT_PATH "/bin:/usr/bin"
#else
#define DEFAULT_PATH "/usr/local/bin:/bin:/usr/bin"
#endif

static bool
is_directory(const char *path)
{
	int fd = (int)raw(SYS_openat, AT_FDCWD, (long)path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0, 0);

	if (fd >= 0)
		raw(SYS_close, fd, 0, 0, 0, 0);
	return fd >= 0;
}

/* Finds what execvp will execute and records where it was not; room is PATH_MAX.
 * Returns NULL if it is nowhere. */
static const char *
sought(const char *file, char *room)
{
	int saved = errno;
	const char *found = NULL, *path, *end;
	size_t n, length;

	if (!file || strchr(file, '/'))
		return file;
	path = ask_variable("PATH", BY_SEARCH);
	if (!path)
		path = DEFAULT_PATH;
	length = strlen(file);
	for (; length && !found; path = end + 1) {
		end = strchrnul(path, ':');
		n = (size_t)(end - path);
		if (n + length + 2 <= PATH_MAX) {
			memcpy(room, path, n);
			if (n)
				room[n++] = '/';
			memcpy(room + n, file, length + 1);
			if (raw(SYS_faccessat, AT_FDCWD, (long)room, X_OK, 0, 0) < 0)
				record_path('S', errno, AT_FDCWD, room);
			else if (is_directory(room))
				record_path('S', EACCES, AT_FDCWD, room);
			else
				found = room;
		}
		if (!*end)
			break;
	}
	errno = saved;
	return found;
}

/* returns what the exec that failed did */
static int
failed(const char *path, int result)
{
	record_path('x', errno, AT_FDCWD, path);
	return result;
}

static int
run(const char *path, char *const argv[], char *const env[])
{
	NEXT(int, execve, (const char *, char *const [], char *const []), -1)
	record_path('X', 0, AT_FDCWD, path);
	return failed(path, real(path, argv, env));
}

static int
run_sought(const char *file, char *const argv[], char *const env[])
{
	char room[PATH_MAX];
	const char *path = sought(file, room);
	int result;

	NEXT(int, execvpe, (const char *, char *const [], char *const []), -1)
	record_path('X', 0, AT_FDCWD, path);
	result = real(file, argv, env);
	return failed(path, result);
}

OURS(int, execve, (const char *path, char *const argv[], char *const env[]))
{
	return run(path, argv, env);
}

OURS(int, execv, (const char *path, char *const argv[]))
{
	return run(path, argv, environ);
}

OURS(int, execvp, (const char *file, char *const argv[]))
{
	return run_sought(file, argv, environ);
}

OURS(int, execvpe, (const char *file, char *const argv[], char *const env[]))
{
	return run_sought(file, argv, env);
}

/* the array is on the stack, as in glibc and musl: this may be a child of vfork */
#define EXECL(name, execute, env_of) \
	OURS(int, name, (const char *file, const char *arg, ...)) \
	{ \
		size_t n = 1; \
		va_list ap; \
		va_start(ap, arg); \
		if (arg) \
			while (va_arg(ap, char *)) \
				n++; \
		va_end(ap); \
		char *argv[n + 1]; \
		char *const *env = environ; \
		va_start(ap, arg); \
		argv[0] = (char *)(size_t)arg; \
		for (size_t i = 1; i <= n; i++) \
			argv[i] = arg ? va_arg(ap, char *) : NULL; \
		env_of \
		va_end(ap); \
		return execute(file, argv, env); \
	}

EXECL(execl, run, )
EXECL(execlp, run_sought, )
EXECL(execle, run, env = va_arg(ap, char *const *);)

OURS(int, fexecve, (int fd, char *const argv[], char *const env[]))
{
	NEXT(int, fexecve, (int, char *const [], char *const []), -1)
	int result;

	record_descriptor('X', 0, fd);
	result = real(fd, argv, env);
	record_descriptor('x', errno, fd);
	return result;
}

OURS(int, execveat, (int dir, const char *path, char *const argv[], char *const env[], int flags))
{
	NEXT(int, execveat, (int, const char *, char *const [], char *const [], int), -1)
	int result;

	if (path && !*path)
		record_descriptor('X', 0, dir);
	else
		record_path('X', 0, dir, path);
	result = real(dir, path, argv, env, flags);
	if (path && !*path)
		record_descriptor('x', errno, dir);
	else
		record_path('x', errno, dir, path);
	return result;
}

/* posix_spawn returns its error */
static int
spawned(const char *path, const pid_t *pid, int error)
{
	if (error)
		record_path('S', error, AT_FDCWD, path);
	else
		record_path_number('Y', 0, path, *pid);
	return error;
}

/* the caller may not want to know the child's number; we do */
OURS(int, posix_spawn, (pid_t *pid, const char *path, const void *actions, const void *attr,
    char *const argv[], char *const env[]))
{
	NEXT(int, posix_spawn, (pid_t *, const char *, const void *, const void *, char *const [], char *const []), ENOSYS)
	pid_t child = 0;
	pid_t *number = pid ? pid : &child;

	return spawned(path, number, real(number, path, actions, attr, argv, env));
}

OURS(int, posix_spawnp, (pid_t *pid, const char *file, const void *actions, const void *attr,
    char *const argv[], char *const env[]))
{
	NEXT(int, posix_spawnp, (pid_t *, const char *, const void *, const void *, char *const [], char *const []), ENOSYS)
	char room[PATH_MAX];
	const char *path = sought(file, room);
	pid_t child = 0;
	pid_t *number = pid ? pid : &child;

	return spawned(path, number, real(number, file, actions, attr, argv, env));
}

/* ---- libraries ---- */

/* What dlopen finds can depend on who calls it, and it looks at its return address for
 * that: called from here, it would search our run path in place of the caller's.
 * musl has no such rule. */
#if defined(__GLIBC__)
static bool
has_tag(const struct link_map *m, ElfW(Sxword) tag)
{
	for (const ElfW(Dyn) *d = m->l_ld; d && d->d_tag != DT_NULL; d++)
		if (d->d_tag == tag)
			return true;
	return false;
}

/* musl has none: a program of musl's under a compiler of glibc's gets this library, too, and would not start */
#pragma weak dladdr1

static __attribute__((noinline)) bool
depends_on_caller(const char *file, const void *caller)
{
	struct link_map *m;
	Dl_info unused;

	if (strchr(file, '$') || !dladdr1 || !dladdr1(caller, &unused, (void **)&m, RTLD_DL_LINKMAP))
		return true;
	if (!strchr(file, '/') && has_tag(m, DT_RUNPATH))
		return true;
	/* an RPATH (not a RUNPATH) is inherited by what its bearer loads; we were loaded
	 * by the program, and so inherit its RPATH as everything does */
	while (m->l_prev)
		m = m->l_prev;
	while ((m = m->l_next))
		if (has_tag(m, DT_RPATH))
			return true;
	return false;
}
#else
static bool
depends_on_caller(const char *file, const void *caller)
{
	(void)file;
	(void)caller;
	return false;
}
#endif

static __attribute__((noinline)) void
record_load(const char *file)
{
	int saved = errno;

	if (!strchr(file, '/') || strchr(file, '$'))
		record_text('N', 0, "dlopen");  /* of the places searched we know nothing */
	else if (raw(SYS_faccessat, AT_FDCWD, (long)file, R_OK, 0, 0) < 0)
		record_path('R', errno, AT_FDCWD, file);
	else
		record_path('R', 0, AT_FDCWD, file);
	errno = saved;
}

static __attribute__((noinline)) void *
load(const char *file, int mode, void *(*real)(const char *, int))
{
	void *handle = real(file, mode);
	struct link_map *m;

	/* the newest are last: the file itself and what it depends on.  After a failure
	 * nothing may be called that makes dlerror forget it. */
	if (!handle || dlinfo(handle, RTLD_DI_LINKMAP, &m))
		record_load(file);
	else
		for (; m; m = m->l_next)
			if (strchr(m->l_name, '/'))     /* the kernel's vdso has none */
				record_path('R', 0, AT_FDCWD, m->l_name);
	return handle;
}

#if defined(__has_attribute)
#if __has_attribute(musttail)
#define MUST_TAIL __attribute__((musttail))
#endif
#endif
#ifndef MUST_TAIL
#define MUST_TAIL               /* at -O2 every gcc does; a test watches it */
#endif

OURS(void *, dlopen, (const char *file, int mode))
{
	NEXT(void *, dlopen, (const char *, int), NULL)
	if (file && *file && !depends_on_caller(file, __builtin_return_address(0)))
		return load(file, mode, real);
	if (file && *file)
		record_load(file);
	/* a jump, so that the real one finds our caller's return address */
	MUST_TAIL return real(file, mode);
}

/* ---- what cannot be followed ---- */

#define UNFOLLOWED(type, name, params, args, failure) \
	OURS(type, name, params) \
	{ \
		NEXT(type, name, params, failure) \
		record_text('N', 0, #name); \
		return real args; \
	}

/* these start a shell that we have no number of */
OURS(int, system, (const char *command))
{
	NEXT(int, system, (const char *), -1)
	if (command)
		record_text('N', 0, "system");
	return real(command);
}

UNFOLLOWED(void *, popen, (const char *command, const char *mode), (command, mode), NULL)
UNFOLLOWED(int, wordexp, (const char *words, void *to, int flags), (words, to, flags), -1)
UNFOLLOWED(int, socket, (int domain, int type, int protocol), (domain, type, protocol), -1)
UNFOLLOWED(int, connect, (int fd, const void *address, unsigned length), (fd, address, length), -1)
/* these have sockets of the C library's own, which come by none of our functions */
UNFOLLOWED(int, getaddrinfo, (const char *host, const char *service, const void *hints, void *to),
    (host, service, hints, to), EAI_FAIL)
UNFOLLOWED(void *, gethostbyname, (const char *host), (host), NULL)
UNFOLLOWED(int, gethostbyname_r, (const char *host, void *to, char *room, size_t size, void *result, int *error),
    (host, to, room, size, result, error), EAGAIN)
UNFOLLOWED(int, getifaddrs, (void *to), (to), -1)
UNFOLLOWED(int, shm_open, (const char *name, int flags, mode_t mode), (name, flags, mode), -1)
UNFOLLOWED(int, mkfifo, (const char *path, mode_t mode), (path, mode), -1)
UNFOLLOWED(int, mkfifoat, (int dir, const char *path, mode_t mode), (dir, path, mode), -1)
UNFOLLOWED(int, mknod, (const char *path, mode_t mode, dev_t device), (path, mode, device), -1)
UNFOLLOWED(int, mknodat, (int dir, const char *path, mode_t mode, dev_t device), (dir, path, mode, device), -1)
UNFOLLOWED(int, chroot, (const char *path), (path), -1)
#ifdef __GLIBC__
UNFOLLOWED(int, __xmknod, (int version, const char *path, mode_t mode, void *device),
    (version, path, mode, device), -1)
UNFOLLOWED(int, __xmknodat, (int version, int dir, const char *path, mode_t mode, void *device),
    (version, dir, path, mode, device), -1)
UNFOLLOWED(int, open_by_handle_at, (int mount, void *handle, int flags), (mount, handle, flags), -1)
/* another namespace has its own C library, without us in front */
UNFOLLOWED(void *, dlmopen, (long namespace, const char *file, int mode), (namespace, file, mode), NULL)
#endif
