#define _GNU_SOURCE
#include "start.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "become.h"
#include "descriptors.h"

extern char **environ;

enum {
	FAILED_S = 10, /* nobody tries again for so long */
	READY_MS = 10000,
	OTHERS_MS = 3000, /* to wait for a start that someone else has in hand */
	OTHERS_STEP_MS = 3,
	READY_FD = 3,
};

int
find_server(char file[PATH_MAX])
{
	const char *given = getenv("SCCACHE_PY_SERVER");
	if (!given || !*given)
		return find_beside("sccache-py-server", file);
	if (strlen(given) >= PATH_MAX)
		return -1;
	memcpy(file, given, strlen(given) + 1);
	return 0;
}

static int
failed_lately(const struct place *place)
{
	char file[PATH_MAX];
	struct stat st;
	struct timespec now;
	beside_socket(place, ".failed", file);
	if (stat(file, &st) < 0)
		return 0;
	clock_gettime(CLOCK_REALTIME, &now);
	/* a stamp from the future says nothing */
	long age = (long)(now.tv_sec - st.st_mtim.tv_sec);
	return age >= -1 && age < FAILED_S;
}

/* Nonblocking: what lies there might be a FIFO. */
static int
open_ours(const char *file, int mode)
{
	const int flags = O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK;
	return clear_of_stdio(open(file, mode | flags, 0600));
}

void
stamp_failure(const struct place *place)
{
	char file[PATH_MAX];
	beside_socket(place, ".failed", file);
	int fd = open_ours(file, O_WRONLY);
	if (fd < 0)
		return;
	futimens(fd, NULL);
	close(fd);
}

void
drop_callers_code(void)
{
	static const char *const starts[] = {"LD_PRELOAD=", "LD_AUDIT=", "PYTHON"};
	size_t kept = 0;
	for (char **variable = environ; *variable; variable++) {
		int drop = 0;
		for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++)
			drop |= strncmp(*variable, starts[i], strlen(starts[i])) == 0;
		if (!drop)
			environ[kept++] = *variable;
	}
	environ[kept] = NULL;
	/* paths are bytes, whatever the first caller's locale makes of them */
	setenv("PYTHONUTF8", "1", 1);
}

/* In the new process: nothing of the caller's may live on in a daemon. */
static _Noreturn void
exec_server(const char *program, const struct place *place, char *native, int ready)
{
	char path[PATH_MAX];
	sigset_t none;
	struct sigaction standard = {.sa_handler = SIG_DFL};
	strcpy(path, program);
	for (int n = 1; n <= 64; n++)
		sigaction(n, &standard, NULL);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	/* ready may be 3 itself, where dup2 would keep close-on-exec */
	int high = fcntl(ready, F_DUPFD_CLOEXEC, READY_FD + 1);
	if (null < 0 || high < 0)
		_exit(127);
	for (int fd = 0; fd < 3; fd++)
		if (dup2(null, fd) != fd || fcntl(fd, F_SETFD, 0) < 0)
			_exit(127);
	if (dup2(high, READY_FD) < 0)
		_exit(127);
	close_from(READY_FD + 1);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	char socket[sizeof(place->name)];
	strcpy(socket, place->name);
	char *argv[] = {
		path, (char[]){"--socket"}, socket, (char[]){"--native"}, native,
		(char[]){"--ready-fd"}, (char[]){"3"}, NULL,
	};
	drop_callers_code();
	execve(path, argv, environ);
	_exit(127);
}

/* Returns 0 when the server has said that it listens. */
static int
start(const struct place *place)
{
	char program[PATH_MAX], native[PATH_MAX];
	int ready[2];
	/* "" makes it the folder that we are in, with the slash */
	if (find_server(program) < 0 || find_beside("", native) < 0 || access(program, X_OK) < 0)
		return -1;
	*strrchr(native, '/') = '\0';
	if (pipe2(ready, O_CLOEXEC) < 0)
		return -1;
	ready[0] = clear_of_stdio(ready[0]);
	ready[1] = clear_of_stdio(ready[1]);
	pid_t child = fork();
	if (child == 0) {
		/* not ours to wait for, and in no session of the caller's */
		setsid();
		if (fork() == 0)
			exec_server(program, place, native[0] ? native : (char[]){"/"}, ready[1]);
		_exit(0);
	}
	close(ready[1]);
	while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR)
		;
	char byte;
	ssize_t n = -1;
	struct pollfd p = {.fd = ready[0], .events = POLLIN};
	for (long end = now_ms() + READY_MS, left = READY_MS; child > 0 && left > 0; left = end - now_ms())
		if (poll(&p, 1, (int)left) > 0) {
			n = read(ready[0], &byte, 1);
			break;
		}
	close(ready[0]);
	return n == 1 ? 0 : -1;
}

/* Where there are no locks (ENOLCK, ENOSYS, a sandbox's EPERM) everybody may
 * start: of two servers the one that took the name last stays. */
static int
is_ours(int lock)
{
	return flock(lock, LOCK_EX | LOCK_NB) == 0 || (errno != EWOULDBLOCK && errno != EINTR);
}

/* Someone else holds the lock: that ends in a server, in a stamp, or (killed)
 * in a free lock.  Returns a socket, or -1; then `*ours` tells whether the lock
 * has become ours. */
static int
dial_patiently(const struct place *place, int lock, int *ours)
{
	for (long end = now_ms() + OTHERS_MS; now_ms() < end && !failed_lately(place);) {
		pause_ms(OTHERS_STEP_MS);
		int fd = dial(place);
		if (fd >= 0)
			return fd;
		if (is_ours(lock)) {
			*ours = 1;
			return -1;
		}
	}
	return -1;
}

int
start_and_dial(const struct place *place)
{
	char file[PATH_MAX];
	int fd = -1;
	if (!place_is_safe(place, 1) || failed_lately(place))
		return -1;
	beside_socket(place, ".lock", file);
	int lock = open_ours(file, O_RDWR);
	if (lock < 0)
		return -1;
	int ours = is_ours(lock);
	if (!ours)
		fd = dial_patiently(place, lock, &ours);
	/* who held the lock just before us may have left a server, or a stamp */
	if (fd < 0 && ours) {
		fd = dial(place);
		if (fd < 0 && (errno == ENOENT || errno == ECONNREFUSED) && !failed_lately(place)) {
			if (start(place) == 0)
				fd = dial(place);
			else
				stamp_failure(place);
		}
	}
	close(lock);
	return fd;
}

void
note_uncounted(const struct place *place)
{
	char file[PATH_MAX];
	if (!place_is_safe(place, 0))
		return;
	beside_socket(place, ".uncounted", file);
	int fd = open_ours(file, O_WRONLY | O_APPEND);
	if (fd < 0)
		return;
	/* the caller's limit on file sizes is for what the compiler writes */
	void (*before)(int) = signal(SIGXFSZ, SIG_IGN);
	if (write(fd, "+", 1) < 0)
		errno = 0; /* a statistic: not worth a word */
	signal(SIGXFSZ, before);
	close(fd);
}
