#ifndef SCCACHE_SILENCE_H
#define SCCACHE_SILENCE_H

#include "place.h"

enum {
	QUIET_MS = 5000, /* without a word; then the server is asked for one */
	STEP_MS = 1000,
	ASKED_STEPS = 10, /* to wait for that */
	ENDED_STEPS = 3, /* to wait for the end of the connection, when the server was killed */
};

/* Kills the server at the other end of a connection: stopped or stuck, it could
 * wake up at any time and write what it had begun to over what was built since.
 * Returns 0, or -1 if it cannot be told from any other process. */
int end_server(const struct place *place, int connection);

#endif
