#ifndef SCCACHE_BECOME_H
#define SCCACHE_BECOME_H

#include <limits.h>
#include <sys/stat.h>

/* Who we are: links and hard links to this program are known by these two
 * numbers.  `known` is 0 where that cannot be found out. */
struct self {
	dev_t device;
	ino_t inode;
	int known;
};

struct self find_self(void);

/* The last component of a path. */
const char *base_name(const char *path);

/* Whether this name (without directory) is one that we are installed under;
 * under any other name we stand for the compiler of that name. */
int is_own_name(const char *name);

/* Whether the word, as a shell would look it up, leads to ourselves. */
int leads_to_self(const char *word, const struct self *self);

/* Searches `name` (no slash) in PATH passing over ourselves (then `*passed` is
 * set to 1).  Returns 0 and the file, or the errno to complain with: ENOENT or
 * EACCES. */
int find_program(const char *name, const struct self *self, char file[PATH_MAX], int *passed);

/* Whether there is such a program, in PATH or where its path leads; we count. */
int names_program(const char *word, const struct self *self);

/* Writes the path of a program that is installed beside us. Returns 0 or -1. */
int find_beside(const char *name, char file[PATH_MAX]);

/* Executes; on failure says so as a shell would and exits with 127 or 126. */
_Noreturn void become(const char *program, char **argv);

/* Says that `name` could not be executed because of `error`, and exits. */
_Noreturn void cannot_become(const char *name, int error);

#endif
