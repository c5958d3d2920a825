#define _GNU_SOURCE
#include "place.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "descriptors.h"

enum { DIAL_MS = 1000 };

static uint64_t
fnv1a64(uint64_t hash, const void *data, size_t n)
{
	const unsigned char *p = data;
	while (n--)
		hash = (hash ^ *p++) * UINT64_C(0x100000001b3);
	return hash;
}

static const uint64_t fnv_start = UINT64_C(0xcbf29ce484222325);

static uint64_t
namespace_inode(const char *link)
{
	struct stat st;
	return stat(link, &st) == 0 ? (uint64_t)st.st_ino : 0;
}

static uint64_t
hash_identity(void)
{
	static const char *const names[] = {
		"SCCACHE_DIR", "SCCACHE_CONF", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HOME",
		"SCCACHE_SERVER_PORT",
	};
	struct stat root;
	char text[128];
	if (stat("/", &root) < 0)
		memset(&root, 0, sizeof(root));
	int n = snprintf(text, sizeof(text), "%ju", (uintmax_t)geteuid());
	uint64_t hash = fnv1a64(fnv_start, text, (size_t)n + 1); /* NUL included */
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		const char *value = getenv(names[i]);
		if (i)
			hash = fnv1a64(hash, "|", 1);
		if (value)
			hash = fnv1a64(hash, value, strlen(value));
	}
	const uint64_t numbers[] = {
		(uint64_t)root.st_dev, (uint64_t)root.st_ino,
		namespace_inode("/proc/self/ns/mnt"), namespace_inode("/proc/self/ns/pid"),
	};
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		n = snprintf(text, sizeof(text), "%c%" PRIu64, 0, numbers[i]);
		hash = fnv1a64(hash, text, (size_t)n);
	}
	return hash;
}

/* snprintf that takes an overflow for the error it is */
static int __attribute__((format(printf, 3, 4)))
format(char *out, size_t room, const char *how, ...)
{
	va_list args;
	va_start(args, how);
	int n = vsnprintf(out, room, how, args);
	va_end(args);
	return n >= 0 && (size_t)n < room ? 0 : -1;
}

static void
find_runtime(struct place *place)
{
	const size_t tail = strlen("/0123456789abcdef.sock");
	const char *xdg = getenv("XDG_RUNTIME_DIR");
	struct stat st;
	/* After su it is missing, after sudo -E another user's, whose it must stay.
	 * 108 bytes on Linux, 104 on macOS: deep temp directories do get there */
	if (xdg && xdg[0] == '/' && stat(xdg, &st) == 0 && S_ISDIR(st.st_mode) &&
	    st.st_uid == geteuid() &&
	    format(place->runtime, sizeof(place->runtime), "%s/sccache-py", xdg) == 0 &&
	    strlen(place->runtime) + tail < sizeof(place->address.sun_path))
		return;
	format(place->runtime, sizeof(place->runtime), "/tmp/sccache-py-%ju", (uintmax_t)geteuid());
}

int
find_place(struct place *place)
{
	struct sockaddr_un *sa = &place->address;
	memset(place, 0, sizeof(*place));
	sa->sun_family = AF_UNIX;
	const char *given = getenv("SCCACHE_SERVER_UDS");
	size_t n;
	if (given && strncmp(given, "\\x00", 4) == 0) {
		/* no file to stand beside: the lock and its kin get a name of the hash */
		n = strlen(given + 4) + 1;
		if (n > sizeof(sa->sun_path))
			return -1;
		memcpy(sa->sun_path + 1, given + 4, n - 1);
		find_runtime(place);
		format(place->name, sizeof(place->name), "%s", given);
		format(place->stem, sizeof(place->stem), "%s/%016" PRIx64, place->runtime,
		       fnv1a64(fnv_start, given, strlen(given)));
	} else if (given && *given) {
		n = strlen(given) + 1;
		if (n > sizeof(sa->sun_path))
			return -1;
		memcpy(sa->sun_path, given, n);
		format(place->name, sizeof(place->name), "%s", given);
		format(place->stem, sizeof(place->stem), "%s", given);
		if (n > 6 && strcmp(given + n - 6, ".sock") == 0)
			place->stem[n - 6] = '\0';
	} else {
		find_runtime(place);
		if (format(place->stem, sizeof(place->stem), "%s/%016" PRIx64, place->runtime,
		           hash_identity()) < 0 ||
		    format(place->name, sizeof(place->name), "%s.sock", place->stem) < 0 ||
		    strlen(place->name) >= sizeof(sa->sun_path))
			return -1;
		n = strlen(place->name) + 1;
		memcpy(sa->sun_path, place->name, n);
	}
	place->length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
	return 0;
}

int
place_is_safe(const struct place *place, int create)
{
	struct stat st;
	if (!place->runtime[0])
		return 1;
	if (create && mkdir(place->runtime, 0700) < 0 && errno != EEXIST)
		return 0;
	if (lstat(place->runtime, &st) < 0)
		return 0;
	errno = EPERM;
	return S_ISDIR(st.st_mode) && st.st_uid == geteuid() && (st.st_mode & 022) == 0;
}

/* We send our whole environment: only to a server of our own user. */
static int
peer_is_ours(int fd)
{
	struct ucred peer;
	socklen_t n = sizeof(peer);
	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0 && peer.uid == geteuid();
}

int
dial(const struct place *place)
{
	int fd = clear_of_stdio(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
	if (fd < 0)
		return -1;
	const struct sockaddr *sa = (const struct sockaddr *)&place->address;
	/* EAGAIN: the backlog is full; a blocking connect would wait without end */
	for (long ms = 1, waited = 0; connect(fd, sa, place->length) < 0; waited += ms, ms += ms < 16) {
		int error = errno;
		if ((error == EAGAIN || error == EINTR) && waited < DIAL_MS) {
			pause_ms(ms);
			continue;
		}
		close(fd);
		errno = error;
		return -1;
	}
	if (!peer_is_ours(fd)) {
		close(fd);
		errno = EPERM;
		return -1;
	}
	return fd;
}

void
beside_socket(const struct place *place, const char *suffix, char file[PATH_MAX])
{
	format(file, PATH_MAX, "%s%s", place->stem, suffix);
}
