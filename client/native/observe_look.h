/* Who was told when a file was changed, where it works, or what the machine is like. */

#ifndef OBSERVE_LOOK_H
#define OBSERVE_LOOK_H

#include "observe_record.h"

/* Records that a path, taken relative to dir, was looked at by the code at caller, and
 * hands back result, which is negative for a failure with its errno. */
int looked_at(int dir, const char *path, const void *caller, int result);

/* The same of an open file, where the path is NULL or empty.  Only a plugin's looks are
 * recorded, as those of `by`: it may make something of the file's time, while programs
 * ask for the size of all that they read. */
int looked_at_open(int fd, const char *path, const void *caller, enum asker by, int result);

/* Records that the code at caller was told the working directory, as if it had read the
 * kernel's link with that name.  Only what a plugin is told is recorded. */
void told_place(const void *caller);

/* Records that the code at caller was told what stands in this file of the kernel's, if that is a plugin. */
void told_machine(const char *path, const void *caller);

/* The same where the path is in one of the kernel's directories, or is one, whether anything is there or not. */
void told_of_kernel(int error, const char *path, const void *caller);

#endif
