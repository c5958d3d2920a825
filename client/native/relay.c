#define _GNU_SOURCE
#include "relay.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "descriptors.h"
#include "silence.h"
#include "wire.h"

enum {
	DYING_MS = 2000, /* how long a caught signal waits for the server to reap */
	TERM_MS = 100, /* between TERM and KILL: gcc removes its temporaries in it */
	GONE_MS = 2000,
	/* POLLOUT on a pipe promises room for this much without blocking */
	CHUNK = 4096,
};

struct talk {
	const struct place *place;
	int server;
	int signals; /* signalfd, or -1 */
	sigset_t before; /* the mask to go back to */
	int caught; /* the first signal that came, else 0 */
	long deadline; /* for its sake; now_ms */
	int sent; /* the whole request is: SIGNAL frames may follow */
	pid_t group;
	unsigned gone; /* bit 1, 2: nobody reads our stdout, stderr */
	int unsaid; /* what was to be written there could not be: the disk is full */
	size_t begin, end; /* of what is unread in bytes */
	unsigned char bytes[65536];
};

/* Ends this process by a signal, as the compiler ended. */
static _Noreturn void
die_by(int number)
{
	sigset_t set;
	struct rlimit none = {0, 0};
	/* the core, if any, was the compiler's; a core_pattern with a pipe
	 * ignores the limit, so both */
	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_DUMPABLE, 0);
	signal(number, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, number);
	kill(getpid(), number);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	_exit(128 + number);
}

/* What the caller blocks or ignores is left as it is.  A descriptor and not a
 * handler: the dispositions stay untouched for the compiler. SIGPIPE is here
 * for our own writes: it ends the compile as it would have ended the compiler. */
static void
catch_signals(struct talk *t, const struct request *request)
{
	static const int wanted[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGPIPE};
	sigset_t set;
	sigemptyset(&set);
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
		if (!((request->blocked | request->ignored) >> (wanted[i] - 1) & 1))
			sigaddset(&set, wanted[i]);
	t->signals = clear_of_stdio(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
	sigprocmask(t->signals < 0 ? SIG_SETMASK : SIG_BLOCK, t->signals < 0 ? NULL : &set, &t->before);
}

/* Until all of the request is out nothing has started: we may die at once. */
static void
take_signal(struct talk *t)
{
	struct signalfd_siginfo info;
	if (read(t->signals, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return;
	if (!t->sent)
		die_by((int)info.ssi_signo);
	if (!t->caught) {
		t->caught = (int)info.ssi_signo;
		t->deadline = now_ms() + DYING_MS;
	}
	unsigned char frame[HEADER_SIZE + 1];
	put_header(frame, 1, KIND_SIGNAL);
	frame[HEADER_SIZE] = (unsigned char)info.ssi_signo;
	send(t->server, frame, sizeof(frame), MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* The server has said nothing for `silences` polls in a row.  Polls are counted
 * and not the time: if it was we who stood still, stopped or frozen together
 * with it, that is one of them.  Returns 0 if it is given up. */
static int
still_hopes(struct talk *t, int silences)
{
	unsigned char frame[HEADER_SIZE];
	if (silences == 1 && t->sent) {
		put_header(frame, 0, KIND_ALIVE_WANTED);
		send(t->server, frame, sizeof(frame), MSG_NOSIGNAL | MSG_DONTWAIT);
	}
	if (silences == 1 + ASKED_STEPS)
		return end_server(t->place, t->server) == 0; /* that it is gone shows as its end */
	return silences < 1 + ASKED_STEPS + ENDED_STEPS;
}

/* All waiting is done here.  Returns what is ready of `events`, or 0: a signal
 * was caught, and the server has had its time, or our own descriptor is stuck;
 * or the server does not answer. */
static short
wait_for(struct talk *t, int fd, short events)
{
	int silences = 0;
	for (;;) {
		struct pollfd p[2] = {{.fd = fd, .events = events}, {.fd = t->signals, .events = POLLIN}};
		long left = fd != t->server ? -1 : silences ? STEP_MS : QUIET_MS;
		if (t->caught)
			left = t->deadline - now_ms();
		if (t->caught && left <= 0)
			return 0;
		if (t->caught && fd != t->server)
			left = 0; /* the compiler would have died in the middle of its write */
		int n = poll(p, 2, (int)left);
		if (n < 0 && errno != EINTR)
			return POLLERR;
		if (n > 0 && p[1].revents)
			take_signal(t);
		if (n > 0 && p[0].revents)
			return p[0].revents;
		if (n == 0 && (t->caught || !still_hopes(t, ++silences)))
			return 0;
	}
}

/* Returns 0 also when the server speaks before it has read everything: then
 * its answer is what counts, and pushing on could block both sides. */
static int
send_all(struct talk *t, const unsigned char *bytes, size_t n)
{
	while (n > 0) {
		ssize_t sent = send(t->server, bytes, n, MSG_NOSIGNAL);
		if (sent >= 0) {
			bytes += sent;
			n -= (size_t)sent;
		} else if (errno == EAGAIN) {
			short ready = wait_for(t, t->server, POLLIN | POLLOUT);
			if (ready & POLLIN)
				return 0;
			if (!ready)
				return -1;
		} else if (errno != EINTR) {
			/* it is gone, but its last words may be there */
			return errno == EPIPE || errno == ECONNRESET ? 0 : -1;
		}
	}
	return 0;
}

/* Returns -1 if the connection is over. */
static int
read_more(struct talk *t)
{
	for (;;) {
		if (!wait_for(t, t->server, POLLIN))
			return -1;
		ssize_t n = recv(t->server, t->bytes, sizeof(t->bytes), 0);
		if (n > 0) {
			t->begin = 0;
			t->end = (size_t)n;
			return 0;
		}
		if (n == 0 || (errno != EAGAIN && errno != EINTR))
			return -1;
	}
}

static int
read_exactly(struct talk *t, unsigned char *out, size_t n)
{
	while (n > 0) {
		if (t->begin == t->end && read_more(t) < 0)
			return -1;
		size_t part = t->end - t->begin < n ? t->end - t->begin : n;
		memcpy(out, t->bytes + t->begin, part);
		t->begin += part;
		out += part;
		n -= part;
	}
	return 0;
}

/* Passes a payload on to our own stdout or stderr.  With its reader gone (or
 * stuck while we are dying) the rest is dropped; SIGPIPE, unless ignored, waits
 * in the signal descriptor. */
static int
pass_on(struct talk *t, int fd, size_t n)
{
	while (n > 0) {
		if (t->begin == t->end && read_more(t) < 0)
			return -1;
		size_t part = t->end - t->begin < n ? t->end - t->begin : n;
		if (part > CHUNK)
			part = CHUNK;
		ssize_t written = (ssize_t)part;
		if (!(t->gone >> fd & 1) && !wait_for(t, fd, POLLOUT))
			t->gone |= 1u << fd;
		if (!(t->gone >> fd & 1))
			written = write(fd, t->bytes + t->begin, part);
		if (written < 0) {
			if (errno != EAGAIN && errno != EINTR) {
				t->gone |= 1u << fd;
				t->unsaid |= errno != EPIPE;
			}
			if (errno == EPIPE && t->signals >= 0)
				take_signal(t); /* before an EXIT that may be here already */
			continue;
		}
		t->begin += (size_t)written;
		n -= (size_t)written;
	}
	return 0;
}

/* Returns 0 if the server got all of it, with the end. */
static int
send_input(struct talk *t, struct input *input)
{
	unsigned char header[HEADER_SIZE];
	for (;;) {
		int more = read_some(input);
		if (more == 0)
			break;
		if (more < 0 && errno == EAGAIN && !wait_for(t, 0, POLLIN))
			return -1;
		if (more > 0 && !wait_for(t, 0, POLLIN))
			return -1;
	}
	if (!input->ended)
		return -1; /* more than the server takes */
	t->sent = 0; /* no SIGNAL frame may cut into these */
	if (input->used > 0) {
		put_header(header, (uint32_t)input->used, KIND_STDIN);
		if (send_all(t, header, sizeof(header)) < 0 ||
		    send_all(t, input->bytes, input->used) < 0)
			return -1;
	}
	put_header(header, 0, KIND_STDIN);
	int result = send_all(t, header, sizeof(header));
	t->sent = 1;
	return result;
}

static int
group_is_gone(pid_t group)
{
	return kill(-group, 0) < 0;
}

/* The server cannot do it any more: two compilers must never write one file. */
static void
end_group(pid_t group)
{
	long start = now_ms();
	if (group <= 1 || group == getpgrp() || kill(-group, SIGTERM) < 0)
		return;
	int killed = 0;
	while (!group_is_gone(group) && now_ms() - start < TERM_MS + GONE_MS) {
		if (!killed && now_ms() - start >= TERM_MS) {
			kill(-group, SIGKILL);
			killed = 1;
		}
		pause_ms(2);
	}
}

/* One frame.  Returns 1 if another may follow, 0 with the outcome, and -1 if
 * the connection is over or makes no sense. */
static int
obey(struct talk *t, struct input *input, enum outcome *outcome)
{
	unsigned char header[HEADER_SIZE], small[4];
	if (read_exactly(t, header, sizeof(header)) < 0)
		return -1;
	uint32_t n = read_u32(header);
	if (n > MAX_FRAME)
		return -1;
	switch (header[4]) {
	case KIND_STDOUT:
	case KIND_STDERR:
		return pass_on(t, header[4] == KIND_STDOUT ? 1 : 2, n) < 0 ? -1 : 1;
	case KIND_STARTED:
		if (n != 4 || read_exactly(t, small, 4) < 0 || read_u32(small) > INT32_MAX)
			return -1;
		t->group = (pid_t)read_u32(small);
		return 1;
	case KIND_STDIN_WANTED:
		return n != 0 || input->taken || send_input(t, input) < 0 ? -1 : 1;
	case KIND_EXIT:
		if (n != 2 || read_exactly(t, small, 2) < 0)
			return -1;
		if (t->caught)
			die_by(t->caught);
		if (t->unsaid) {
			/* what that means only the compiler knows; all else of this one is done */
			t->group = 0;
			*outcome = OURS_TO_RUN;
			return 0;
		}
		if (small[0] == 1 && small[1] > 0)
			die_by(small[1]);
		_exit(small[1]);
	case KIND_ALIVE:
		return n != 0 ? -1 : 1;
	case KIND_PASS:
		*outcome = OURS_TO_RUN;
		return 0;
	case KIND_LEAVING:
		*outcome = SERVER_LEAVES;
		return 0;
	default:
		return -1;
	}
}

enum outcome
relay(const struct place *place, int server, const struct request *request, struct input *input)
{
	static struct talk talk; /* zero, and 64 KiB are much for a stack */
	struct talk *t = &talk;
	enum outcome outcome = OURS_TO_RUN;
	memset(t, 0, offsetof(struct talk, bytes));
	t->place = place;
	t->server = server;
	catch_signals(t, request);
	int more = send_all(t, request->frame, request->length) < 0 ? -1 : 1;
	t->sent = 1;
	while (more > 0)
		more = obey(t, input, &outcome);
	close(server);
	if (t->group)
		end_group(t->group);
	if (t->caught)
		die_by(t->caught);
	if (t->signals >= 0)
		close(t->signals);
	sigprocmask(SIG_SETMASK, &t->before, NULL); /* what came meanwhile strikes now */
	return outcome;
}
