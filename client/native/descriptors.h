#ifndef SCCACHE_DESCRIPTORS_H
#define SCCACHE_DESCRIPTORS_H

/* Moves a descriptor to 3 or above (close-on-exec), so that what the caller
 * left closed among 0-2 stays closed for the compiler.  Takes -1 for -1. */
int clear_of_stdio(int fd);

/* Closes every descriptor from `lowest` on. */
void close_from(int lowest);

/* Milliseconds of a clock that nobody sets. */
long now_ms(void);

/* Sleeps; a signal may end it early. */
void pause_ms(long ms);

#endif
