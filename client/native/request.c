#define _GNU_SOURCE
#include "request.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "own_signals.h"
#include "wire.h"

extern char **environ;

/* room for all that is not argv, environment, program and cwd */
enum { FIXED_BYTES = 4096, PER_STRING = 5 };

static size_t
sum_strings(char **strings, size_t *count)
{
	size_t sum = 0;
	for (*count = 0; strings[*count]; ++*count)
		sum += strlen(strings[*count]) + PER_STRING;
	return sum;
}

static void
put_strings(struct writer *w, char **strings, size_t count)
{
	put_array(w, count);
	for (size_t i = 0; i < count; i++)
		put_text(w, strings[i]);
}

static void
put_place(struct writer *w, const struct stat *st)
{
	put_array(w, 2);
	put_uint(w, (uint64_t)st->st_dev);
	put_uint(w, (uint64_t)st->st_ino);
}

static void
put_limits(struct writer *w)
{
	struct { uint64_t soft, hard; } limit;
	put_array(w, RLIM_NLIMITS);
	for (unsigned i = 0; i < RLIM_NLIMITS; i++) {
		/* the kernel's own call: 64 bits and 2^64-1 for infinity everywhere */
		if (syscall(SYS_prlimit64, 0, i, NULL, &limit) < 0)
			limit.soft = limit.hard = UINT64_MAX;
		put_array(w, 3);
		put_uint(w, i);
		put_uint(w, limit.soft);
		put_uint(w, limit.hard);
	}
}

static void
put_descriptors(struct writer *w)
{
	unsigned bits = 0, columns = 0;
	for (int fd = 0; fd < 3; fd++) {
		struct winsize size;
		/* one call tells closed (EBADF), open (ENOTTY) and terminal */
		if (ioctl(fd, TIOCGWINSZ, &size) == 0) {
			bits |= 0x11u << fd;
			columns = size.ws_col ? size.ws_col : columns;
		} else if (errno != EBADF) {
			bits |= 0x01u << fd;
		}
	}
	put_uint(w, bits);
	put_uint(w, columns);
}

static void
put_affinity(struct writer *w)
{
	unsigned char set[1024]; /* 8192 processors, as many as Linux can be built for */
	/* not glibc's wrapper, which hides how many bytes the kernel wrote */
	long n = syscall(SYS_sched_getaffinity, 0, sizeof(set), set);
	put_bin(w, set, n > 0 ? (size_t)n : 0);
}

static void
find_signals(struct request *request)
{
	sigset_t set;
	sigemptyset(&set);
	sigprocmask(SIG_SETMASK, NULL, &set);
	for (int n = 1; n <= 64; n++)
		if (sigismember(&set, n) == 1)
			request->blocked |= UINT64_C(1) << (n - 1);
	for (int n = 1; n <= 31; n++) {
		struct sigaction now;
		if (sigaction(n, NULL, &now) == 0 && now.sa_handler == SIG_IGN)
			request->ignored |= UINT64_C(1) << (n - 1);
	}
	for (int n = OWN_SIGNAL; n < OWN_SIGNAL + OWN_SIGNALS; n++)
		if (own_signal_is_ignored(n))
			request->ignored |= UINT64_C(1) << (n - 1);
}

int
build_request(struct request *request, const char *program, char **argv)
{
	char cwd[PATH_MAX];
	struct stat root, here;
	size_t argc, envc;
	memset(request, 0, sizeof(*request));
	/* the kernel says "(unreachable)…" for a cwd outside our root */
	if (!getcwd(cwd, sizeof(cwd)) || cwd[0] != '/')
		return -1;
	if (stat("/", &root) < 0 || stat(".", &here) < 0)
		return -1;
	size_t room = HEADER_SIZE + FIXED_BYTES + sum_strings(argv, &argc) +
	              sum_strings(environ, &envc) + strlen(program) + strlen(cwd);
	if (room > MAX_FRAME)
		return -1;
	struct writer w = {.at = malloc(room), .used = HEADER_SIZE, .room = room};
	if (!w.at)
		return -1;
	find_signals(request);
	mode_t mask = umask(0);
	umask(mask);

	put_array(&w, 16);
	put_uint(&w, PROTOCOL);
	put_text(&w, SCCACHE_VERSION);
	put_strings(&w, argv, argc);
	put_text(&w, program);
	put_text(&w, cwd);
	put_strings(&w, environ, envc);
	put_uint(&w, mask);
	put_int(&w, getpriority(PRIO_PROCESS, 0));
	put_limits(&w);
	put_descriptors(&w);
	put_place(&w, &root);
	put_place(&w, &here);
	put_affinity(&w);
	put_uint(&w, request->blocked);
	put_uint(&w, request->ignored);
	if (w.full) {
		free(w.at);
		return -1;
	}
	put_header(w.at, (uint32_t)(w.used - HEADER_SIZE), KIND_REQUEST);
	request->frame = w.at;
	request->length = w.used;
	return 0;
}
