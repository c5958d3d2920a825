#ifndef SCCACHE_REQUEST_H
#define SCCACHE_REQUEST_H

#include <stddef.h>
#include <stdint.h>

/* The frame that asks for a compile, ready to be sent, and what relaying
 * needs to know of what went into it. */
struct request {
	unsigned char *frame;
	size_t length;
	uint64_t blocked, ignored; /* bit n-1: signal n */
};

/* Describes this very process to the server.  Returns 0, or -1 if that is
 * impossible (no cwd, no memory, more than a frame holds). */
int build_request(struct request *request, const char *program, char **argv);

#endif
