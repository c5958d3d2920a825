/* What an open makes known. */

#ifndef OBSERVE_OPEN_H
#define OBSERVE_OPEN_H

/* Records that a path, taken relative to dir, was opened with these flags, and hands back
 * result: the descriptor, or negative for a failure with its errno.  caller: the code that did it. */
int opened(int dir, const char *path, int flags, int result, const void *caller);

#endif
