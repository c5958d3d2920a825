#ifndef SCCACHE_START_H
#define SCCACHE_START_H

#include <limits.h>

#include "place.h"

/* Finds the server's program: $SCCACHE_PY_SERVER, or beside us. 0 or -1. */
int find_server(char file[PATH_MAX]);

/* Takes out of our environment what would run in the server: the libraries and
 * Python modules of whoever comes first (CVE-2023-1521).  LD_LIBRARY_PATH stays,
 * for some Pythons need it to start; the server forgets it then. */
void drop_callers_code(void);

/* Starts a server, or waits for the one that another client is starting, and
 * connects to it.  Returns the socket, or -1: do without. */
int start_and_dial(const struct place *place);

/* Keeps everybody from starting a server for the next ten seconds. */
void stamp_failure(const struct place *place);

/* Leaves a mark that a compile went by without a server. */
void note_uncounted(const struct place *place);

#endif
