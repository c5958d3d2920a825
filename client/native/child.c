#define _GNU_SOURCE
#include "child.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "become.h"
#include "own_signals.h"

static void
set_cpus(const char *hex)
{
	unsigned char set[1024];
	size_t n = 0;
	for (; hex[0] && hex[1] && n < sizeof(set); hex += 2) {
		const char pair[3] = {hex[0], hex[1], '\0'};
		set[n++] = (unsigned char)strtoul(pair, NULL, 16);
	}
	if (n)
		syscall(SYS_sched_setaffinity, 0, n, set);
}

static void
set_blocked(uint64_t mask)
{
	sigset_t set;
	sigemptyset(&set);
	for (int n = 1; n <= 64; n++)
		if (mask >> (n - 1) & 1)
			sigaddset(&set, n);
	sigprocmask(SIG_SETMASK, &set, NULL);
}

/* The mask is the whole truth: what the server ignores (Python ignores
 * SIGPIPE) is of no concern to the compiler. */
static void
set_ignored(uint64_t mask)
{
	for (int n = 1; n <= 31; n++) {
		struct sigaction action = {.sa_handler = mask >> (n - 1) & 1 ? SIG_IGN : SIG_DFL};
		sigaction(n, &action, NULL);
	}
	for (int n = OWN_SIGNAL; n < OWN_SIGNAL + OWN_SIGNALS; n++)
		set_own_signal(n, mask >> (n - 1) & 1);
}

static void
set_limit(const char *value)
{
	char *rest;
	struct { uint64_t soft, hard; } limit;
	unsigned long resource = strtoul(value, &rest, 10);
	if (*rest != ':')
		return;
	limit.soft = strtoull(rest + 1, &rest, 10);
	if (*rest != ':')
		return;
	limit.hard = strtoull(rest + 1, &rest, 10);
	syscall(SYS_prlimit64, 0, resource, &limit, NULL);
}

/* A descriptor: the directory may get another name, and paths have no end.
 * Anywhere else the compile would be another one. */
static void
enter(const char *descriptor)
{
	int fd = (int)strtol(descriptor, NULL, 10);
	if (fchdir(fd) != 0)
		cannot_become(".", errno);
	close(fd);
}

/* What fails is passed over: the server has already refused what it cannot
 * grant, and what is left is worth less than the compile. */
static void
apply(const char *name, const char *value)
{
	if (strcmp(name, "umask") == 0)
		umask((mode_t)strtoul(value, NULL, 8));
	else if (strcmp(name, "nice") == 0)
		setpriority(PRIO_PROCESS, 0, (int)strtol(value, NULL, 10));
	else if (strcmp(name, "cpus") == 0)
		set_cpus(value);
	else if (strcmp(name, "block") == 0)
		set_blocked(strtoull(value, NULL, 16));
	else if (strcmp(name, "ignore") == 0)
		set_ignored(strtoull(value, NULL, 16));
	else if (strcmp(name, "limit") == 0)
		set_limit(value);
	else if (strcmp(name, "cwd") == 0)
		enter(value);
}

_Noreturn void
run_child(char **argv)
{
	if (!argv[0] || !argv[1] || !argv[2])
		cannot_become("--child", EINVAL);
	/* The client ends us if the server dies; if both are killed, this does.
	 * Nobody would know of us, and the next compile would write the same files. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	char *state = NULL;
	for (char *item = strtok_r(argv[0], ";", &state); item; item = strtok_r(NULL, ";", &state)) {
		char *equals = strchr(item, '=');
		if (!equals)
			continue;
		*equals = '\0';
		apply(item, equals + 1);
	}
	become(argv[1], argv + 2);
}
