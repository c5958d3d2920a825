#define _GNU_SOURCE
#include "input.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "descriptors.h"
#include "wire.h"

int
read_some(struct input *input)
{
	if (!input->taken) {
		struct stat st;
		int seekable = fstat(0, &st) == 0 && S_ISREG(st.st_mode);
		input->offset = seekable ? lseek(0, 0, SEEK_CUR) : -1;
		input->bytes = malloc(MAX_STDIN + 1);
		input->taken = 1;
	}
	if (!input->bytes)
		return 0;
	ssize_t n = read(0, input->bytes + input->used, MAX_STDIN + 1 - input->used);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return -1;
	if (n <= 0) {
		input->ended = 1;
		input->unreadable = n < 0 && input->used == 0;
		return 0;
	}
	input->used += (size_t)n;
	return input->used <= MAX_STDIN;
}

/* Into a pipe of ours, which blocks.  Returns -1 if nobody reads it. */
static int
write_all(int to, const unsigned char *bytes, size_t n)
{
	while (n > 0) {
		ssize_t written = write(to, bytes, n);
		if (written < 0 && errno != EINTR)
			return -1;
		if (written > 0) {
			bytes += written;
			n -= (size_t)written;
		}
	}
	return 0;
}

/* The remembered bytes, then whatever is still to come on descriptor 0. */
static _Noreturn void
feed(const struct input *input, int to)
{
	signal(SIGPIPE, SIG_IGN);
	/* somebody may be waiting for the end of our caller's pipes: keep none open */
	if (dup2(to, 1) < 0)
		_exit(0);
	close_from(2);
	int gone = write_all(1, input->bytes, input->used) < 0;
	while (!gone && !input->ended) {
		unsigned char part[65536];
		struct pollfd p[2] = {{.fd = 0, .events = POLLIN}, {.fd = 1}};
		if (poll(p, 2, -1) < 0 && errno == EINTR)
			continue;
		if (p[1].revents & POLLERR)
			break;
		ssize_t n = read(0, part, sizeof(part));
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n <= 0)
			break;
		gone = write_all(1, part, (size_t)n) < 0;
	}
	_exit(0);
}

void
give_back(const struct input *input)
{
	int ends[2];
	if (!input->taken || input->unreadable)
		return;
	if (input->offset >= 0 && lseek(0, input->offset, SEEK_SET) == input->offset)
		return;
	if (!input->bytes || (input->used == 0 && !input->ended))
		return;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return;
	ends[0] = clear_of_stdio(ends[0]);
	ends[1] = clear_of_stdio(ends[1]);
	/* what fits into the pipe needs nobody to feed it */
	int room = fcntl(ends[1], F_GETPIPE_SZ);
	if (input->ended && input->used > (size_t)room)
		room = fcntl(ends[1], F_SETPIPE_SZ, MAX_STDIN);
	if (input->ended && room >= 0 && input->used <= (size_t)room) {
		write_all(ends[1], input->bytes, input->used);
	} else {
		/* twice, so that the compiler is not its parent and never waits for it */
		pid_t child = fork();
		if (child == 0)
			fork() == 0 ? feed(input, ends[1]) : _exit(0);
		while (child > 0 && waitpid(child, NULL, 0) < 0 && errno == EINTR)
			;
	}
	dup2(ends[0], 0);
	close(ends[0]);
	close(ends[1]);
}
