/* The record that a compiler's process tree leaves: docs/protocol.md, section 4.
 *
 * Everything here may be called from a signal handler, from a child of vfork
 * and from any thread, and leaves errno alone: no lock, no malloc, no stdio.
 * Where nobody asked for a record it does nothing, and says nothing. */

#ifndef OBSERVE_RECORD_H
#define OBSERVE_RECORD_H

#include <stddef.h>
#include <stdint.h>

/* Attaches to the file that SCCACHE_PY_OBSERVE names and records that this image
 * began, unless that was done.  The others call it by themselves: constructors
 * of other libraries may come before ours. */
void record_begin(void);

/* Records kind and error with one path, which is taken relative to dir (a
 * descriptor or AT_FDCWD).  Nothing is recorded of a path that is NULL or empty,
 * or that the kernel could not read or found too long. */
void record_path(char kind, int error, int dir, const char *path);

/* Records a path that was opened, to be read or listed, and which file that was: its
 * inode and device, for the name may lead elsewhere when the compiler has ended. */
void record_opened(char kind, int dir, const char *path, int fd);

/* Who asks for a variable, or looks at a file: the program, a library that it opened by
 * itself, the C library, which looks along PATH for a program, or again a library that
 * it opened, which may only want to know how much there is to read. */
enum asker { BY_PROGRAM, BY_PLUGIN, BY_SEARCH, BY_READER };

/* Records that a path was looked at by a function that also tells when it was changed. */
void record_look(int error, int dir, const char *path, enum asker by);

/* The same by a plugin, with the places in its library from which the calls came that led there. */
void record_look_from(int dir, const char *path, const char *library, const uintptr_t *calls, size_t n);

/* Records that an open file was looked at by a plugin; nothing is recorded of a pipe, or
 * of a file whose name is gone. */
void record_open_look(int fd, enum asker by);

/* Records kind and error with two paths, each relative to its own directory. */
void record_paths(char kind, int error, int dir, const char *path, int dir2, const char *path2);

/* Records that a link was made, and what it says: what is found by it may be anyone's. */
void record_link(int error, const char *target, int dir, const char *path);

/* Records what an open descriptor refers to. */
void record_descriptor(char kind, int error, int fd);

/* Records a path, taken relative to the current directory, and a number. */
void record_path_number(char kind, int error, const char *path, long number);

/* Records text that is no path. */
void record_text(char kind, int error, const char *text);

/* What getenv returns, unrecorded; nothing behind it takes a lock. */
char *variable(const char *name);

/* Records once for each image, asker and answer that a variable was asked for. */
void record_variable(const char *name, int is_set, enum asker by);

/* Both at once, for functions of the C library that ask without coming by getenv. */
const char *ask_variable(const char *name, enum asker by);

/* Records once for each image that a plugin asked what time it is. */
void record_clock(void);

#endif
