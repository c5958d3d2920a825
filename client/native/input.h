#ifndef SCCACHE_INPUT_H
#define SCCACHE_INPUT_H

#include <stddef.h>
#include <sys/types.h>

/* What was read of our standard input for the server, kept for the compiler
 * in case that we have to become it after all. */
struct input {
	unsigned char *bytes; /* at most MAX_STDIN + 1 of them */
	size_t used;
	int taken; /* something was read, or the end was */
	int ended;
	int unreadable; /* closed, a directory: the compiler shall meet that, too */
	off_t offset; /* where a seekable input stood, else -1 */
};

/* One read.  Returns 1: more may follow, 0: at the end or above MAX_STDIN
 * (`ended` tells which), -1: nothing there yet (errno EAGAIN or EINTR). */
int read_some(struct input *input);

/* Makes descriptor 0 deliver again all that was read, then the rest. */
void give_back(const struct input *input);

#endif
