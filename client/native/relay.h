#ifndef SCCACHE_RELAY_H
#define SCCACHE_RELAY_H

#include "input.h"
#include "place.h"
#include "request.h"

enum outcome {
	OURS_TO_RUN, /* the server passed, or there was trouble: become the compiler */
	SERVER_LEAVES, /* it is of another version: start our own */
};

/* Sends the request and does what the server says, until the compile is over;
 * then this process ends as the compiler did.  Returns only if the compiler
 * is to be run by us; its process group, if it had started, is gone by then,
 * and what was read of our standard input is in `input`.  A server that does
 * not answer is ended. */
enum outcome relay(const struct place *place, int server, const struct request *request, struct input *input);

#endif
