#define _GNU_SOURCE
#include "become.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

extern char **environ;

struct self
find_self(void)
{
	struct stat st;
	struct self self = {0};
	const char *started = (const char *)getauxval(AT_EXECFN);
	/* without /proc the name that execve was given has to do */
	if (stat("/proc/self/exe", &st) == 0 || (started && stat(started, &st) == 0)) {
		self.device = st.st_dev;
		self.inode = st.st_ino;
		self.known = 1;
	}
	return self;
}

const char *
base_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

int
is_own_name(const char *name)
{
	static const char *const ours[] = {"sccache-py", "sccache", "sccache-py.exe", "sccache.exe"};
	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++)
		if (strcmp(name, ours[i]) == 0)
			return 1;
	return 0;
}

static int
same(const struct self *self, const struct stat *st)
{
	return self->known && st->st_dev == self->device && st->st_ino == self->inode;
}

/* Another copy of us with a folder of links of its own: it would pass over
 * itself and find our link, we would pass over ours and find its, for ever. */
static int
links_to_other_copy(const char *file)
{
	char target[PATH_MAX];
	ssize_t n = readlink(file, target, sizeof(target) - 1);
	if (n < 0)
		return 0;
	target[n] = '\0';
	return strcmp(base_name(target), "sccache-py") == 0;
}

/* One step through PATH: writes the next candidate.  Returns 0 at the end.
 * An empty element is the current directory (POSIX, XBD 8.3). */
static int
next_candidate(const char **path, const char *name, char file[PATH_MAX])
{
	while (*path) {
		const char *end = strchrnul(*path, ':');
		size_t n = (size_t)(end - *path);
		int length = snprintf(file, PATH_MAX, "%.*s%s%s", (int)n, *path, n ? "/" : "", name);
		*path = *end ? end + 1 : NULL;
		if (length > 0 && length < PATH_MAX)
			return 1;
	}
	return 0;
}

static const char *
search_path(void)
{
	const char *path = getenv("PATH");
	return path ? path : "/bin:/usr/bin"; /* as execvp does */
}

int
leads_to_self(const char *word, const struct self *self)
{
	struct stat st;
	char file[PATH_MAX];
	if (strchr(word, '/'))
		return stat(word, &st) == 0 && same(self, &st);
	const char *path = search_path();
	while (next_candidate(&path, word, file))
		if (stat(file, &st) == 0 && S_ISREG(st.st_mode) && access(file, X_OK) == 0)
			return same(self, &st);
	return 0;
}

int
find_program(const char *name, const struct self *self, char file[PATH_MAX], int *passed)
{
	struct stat st;
	int error = ENOENT;
	const char *path = search_path();
	if (!*name)
		return ENOENT;
	while (next_candidate(&path, name, file)) {
		if (stat(file, &st) < 0 || !S_ISREG(st.st_mode))
			continue;
		if (same(self, &st) || links_to_other_copy(file)) {
			*passed = 1;
			continue;
		}
		if (access(file, X_OK) == 0)
			return 0;
		error = EACCES;
	}
	return error;
}

int
names_program(const char *word, const struct self *self)
{
	struct stat st;
	char file[PATH_MAX];
	int passed = 0;
	if (strchr(word, '/'))
		return stat(word, &st) == 0 && S_ISREG(st.st_mode) && access(word, X_OK) == 0;
	return find_program(word, self, file, &passed) == 0 || passed;
}

int
find_beside(const char *name, char file[PATH_MAX])
{
	ssize_t n = readlink("/proc/self/exe", file, PATH_MAX - 1);
	if (n < 0) {
		const char *started = (const char *)getauxval(AT_EXECFN);
		if (!started || !realpath(started, file))
			return -1;
		n = (ssize_t)strlen(file);
	}
	file[n] = '\0';
	char *base = strrchr(file, '/');
	size_t room = base ? PATH_MAX - (size_t)(base + 1 - file) : 0;
	if (strlen(name) >= room)
		return -1;
	memcpy(base + 1, name, strlen(name) + 1);
	return 0;
}

_Noreturn void
cannot_become(const char *name, int error)
{
	fprintf(stderr, "sccache-py: %s: %s\n", name, strerror(error));
	exit(error == ENOENT ? 127 : 126);
}

_Noreturn void
become(const char *program, char **argv)
{
	execve(program, argv, environ);
	int error = errno;
	if (error == ENOEXEC) {
		/* a script without "#!": execvp and every shell give it to sh */
		size_t argc = 0;
		while (argv[argc])
			argc++;
		char **shell = calloc(argc + 3, sizeof(*shell));
		if (shell) {
			static char sh[] = "sh";
			shell[0] = sh;
			shell[1] = (char *)(size_t)program;
			for (size_t i = 1; i < argc; i++)
				shell[i + 1] = argv[i];
			execve("/bin/sh", shell, environ);
		}
	}
	cannot_become(program, error);
}
