#ifndef SCCACHE_PLACE_H
#define SCCACHE_PLACE_H

#include <limits.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Where our server listens (docs/protocol.md, section 1). */
struct place {
	struct sockaddr_un address;
	socklen_t length;
	char name[sizeof(((struct sockaddr_un *)0)->sun_path) + 4]; /* as --socket takes it */
	char stem[sizeof(((struct sockaddr_un *)0)->sun_path) + 32]; /* X of X.lock, X.failed … */
	char runtime[sizeof(((struct sockaddr_un *)0)->sun_path)];   /* "" if nothing of ours lies there */
};

/* Fills it in.  Returns 0, or -1 if there is no such place (a name too long). */
int find_place(struct place *place);

/* Whether the runtime directory is a directory of ours that nobody else can
 * write to; with `create` it is made first if it is missing.  If not, errno. */
int place_is_safe(const struct place *place, int create);

/* Returns a connected socket (nonblocking, 3 or above), or -1 with errno:
 * ENOENT and ECONNREFUSED mean that no server is there. */
int dial(const struct place *place);

/* Writes the stem with a suffix, such as ".lock". */
void beside_socket(const struct place *place, const char *suffix, char file[PATH_MAX]);

#endif
