#define _GNU_SOURCE
#include "observe_record.h"
#include "observe_next.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/auxv.h>
#include <sys/syscall.h>
#include <unistd.h>

struct header {
	char magic[4];
	uint32_t version;
	uint64_t size;
	_Atomic uint64_t position;
	_Atomic uint32_t lost;
	uint32_t zero[9];
};

struct entry {
	uint32_t length;
	_Atomic uint8_t done;
	uint8_t kind;
	uint16_t error;
	uint32_t pid;
	char text[];
};

_Static_assert(sizeof(struct header) == 64, "docs/protocol.md says 64");
_Static_assert(offsetof(struct header, position) == 16, "docs/protocol.md says 16");
_Static_assert(offsetof(struct entry, text) == 12, "docs/protocol.md says 12");

/* Up to three pieces that are written without anything between them. */
struct text {
	const char *piece[3];
	size_t length[3];
};

enum { UNTRIED, TRYING, RECORDING, SILENT };

static _Atomic int state;
static struct header *region;

/* Where the record file is, for a program that comes upon it (one that opens every
 * file of a directory, say): that is our doing, not the compiler's. */
static char own[256];

/* Variables already recorded, as offset / 8 of their record: rustc asks for some
 * of them thousands of times.  A slot that two names share only costs a record
 * more.  A forked child rightly inherits it, an exec'd one starts anew. */
static _Atomic uint32_t asked[256];

static size_t
text_length(const struct text *t)
{
	return t ? t->length[0] + t->length[1] + t->length[2] : 0;
}

static char *
text_copy(char *to, const struct text *t)
{
	for (int i = 0; t && i < 3; i++)
		/* memcpy may not be given NULL, not even for no bytes */
		if (t->length[i]) {
			memcpy(to, t->piece[i], t->length[i]);
			to += t->length[i];
		}
	return to + 1;                  /* the region is zero: NUL is there */
}

static void
lose(void)
{
	atomic_fetch_add_explicit(&region->lost, 1, memory_order_relaxed);
}

/* returns the record, or NULL if there was no room */
static struct entry *
put(char kind, int error, const struct text *text1, const struct text *text2)
{
	size_t length = sizeof(struct entry) + text_length(text1) + text_length(text2) + 2;
	struct entry *e;
	uint64_t at;
	char *p;

	length = (length + 7) & ~(size_t)7;
	at = atomic_fetch_add_explicit(&region->position, length, memory_order_relaxed);
	if (at > region->size || length > region->size - at) {
		lose();
		return NULL;
	}
	e = (struct entry *)(void *)((char *)region + at);
	e->length = (uint32_t)length;
	e->kind = (uint8_t)kind;
	e->error = (uint16_t)error;
	/* not remembered: a child of vfork would see its parent's.  Not getpid():
	 * glibc before 2.25 remembered it, and clone left that wrong. */
	e->pid = (uint32_t)raw(SYS_getpid, 0, 0, 0, 0, 0);
	p = text_copy(e->text, text1);
	text_copy(p, text2);
	atomic_store_explicit(&e->done, 1, memory_order_release);
	return e;
}

char *
variable(const char *name)
{
	size_t n = strlen(name);

	for (char **e = environ; e && *e; e++)
		if (!strncmp(*e, name, n) && (*e)[n] == '=')
			return *e + n + 1;
	return NULL;
}

/* returns the mapped file, or NULL if there is none that we understand */
static struct header *
attach(const char *path)
{
	struct header *h = NULL;
	void *m;
	off_t size;
	/* not open(): that is our own */
	int fd = (int)raw(SYS_openat, AT_FDCWD, (long)path, O_RDWR | O_CLOEXEC, 0, 0);

	if (fd < 0)
		return NULL;
	size = lseek(fd, 0, SEEK_END);  /* fstat is a name that old C libraries do not have */
	if (size >= (off_t)sizeof(*h)) {
		m = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (m != MAP_FAILED) {
			h = m;
			if (memcmp(h->magic, "SCOB", 4) || h->version != 1 || h->size != (uint64_t)size) {
				munmap(m, (size_t)size);
				h = NULL;
			}
		}
	}
	raw(SYS_close, fd, 0, 0, 0, 0);
	return h;
}

static void
record_image(void)
{
	char exe[PATH_MAX];
	long n = raw(SYS_readlinkat, AT_FDCWD, (long)"/proc/self/exe", (long)exe, sizeof(exe), 0);
	const char *name = (const char *)getauxval(AT_EXECFN);
	struct text text1 = {{exe}, {n > 0 ? (size_t)n : 0}};
	struct text text2 = {{name}, {name ? strlen(name) : 0}};

	put('P', 0, &text1, &text2);
}

/* kept out of line for its frame: most calls find RECORDING */
static __attribute__((noinline)) void
begin(void)
{
	int before = UNTRIED, saved = errno;
	const char *path;

	/* no environment yet: the C library was not initialised */
	if (!environ || !atomic_compare_exchange_strong(&state, &before, TRYING))
		return;
	path = variable("SCCACHE_PY_OBSERVE");
	region = path ? attach(path) : NULL;
	if (region) {
		if (strlen(path) < sizeof(own))
			strcpy(own, path);
		record_image();
	}
	atomic_store_explicit(&state, region ? RECORDING : SILENT, memory_order_release);
	errno = saved;
}

static bool
recording(void)
{
	int s = atomic_load_explicit(&state, memory_order_acquire);

	if (s == UNTRIED) {
		begin();
		s = atomic_load_explicit(&state, memory_order_acquire);
	}
	return s == RECORDING;
}

void
record_begin(void)
{
	recording();
}

/* fills in the directory that a relative path starts from; room is PATH_MAX */
static bool
locate(struct text *t, int dir, const char *path, char *room)
{
	char link[sizeof("/proc/self/fd/") + 10] = "/proc/self/fd/";
	char digits[10];
	size_t n = sizeof("/proc/self/fd/") - 1, d = 0;
	long length;

	t->piece[2] = path;
	t->length[2] = strnlen(path, PATH_MAX);
	if (*path == '/')
		return true;
	if (dir == AT_FDCWD) {
		length = raw(SYS_getcwd, (long)room, PATH_MAX, 0, 0, 0) - 1;
	} else if (dir >= 0) {
		do
			digits[d++] = (char)('0' + dir % 10);
		while (dir /= 10);
		while (d)
			link[n++] = digits[--d];
		link[n] = 0;
		length = raw(SYS_readlinkat, AT_FDCWD, (long)link, (long)room, PATH_MAX, 0);
	} else {
		return false;
	}
	/* "(unreachable)/x", "pipe:[1]": no path that anyone could look at later */
	if (length < 1 || *room != '/')
		return false;
	t->piece[0] = room;
	t->length[0] = (size_t)length;
	if (*path && length > 1) {
		t->piece[1] = "/";
		t->length[1] = 1;
	}
	return true;
}

static bool
is_worth(int error, const char *path)
{
	/* EFAULT: not ours to touch */
	return error != EFAULT && error != ENAMETOOLONG && path && *path;
}

/* apart from the absolute one for the sake of small stacks */
static __attribute__((noinline)) void
record_relative(char kind, int error, int dir, const char *path, const struct text *text2)
{
	char room[PATH_MAX];
	struct text text1 = {{0}, {0}};

	if (locate(&text1, dir, path, room))
		put(kind, error, &text1, text2);
	else if (error != EBADF)
		lose();
}

static void
record_one(char kind, int error, int dir, const char *path, const struct text *text2)
{
	int saved = errno;
	struct text text1;

	if (!is_worth(error, path) || !recording())
		return;
	if (*path != '/') {
		record_relative(kind, error, dir, path, text2);
	} else if (strcmp(path, own)) {
		text1 = (struct text){{path}, {strnlen(path, PATH_MAX)}};
		put(kind, error, &text1, text2);
	}
	errno = saved;
}

void
record_path(char kind, int error, int dir, const char *path)
{
	record_one(kind, error, dir, path, NULL);
}

/* statx(2)'s answer; the kernel's header for it is not everywhere */
struct which {
	uint32_t before[8];
	uint64_t inode;
	uint32_t between[24];
	uint32_t major, minor;
	uint32_t behind[28];
};

_Static_assert(offsetof(struct which, inode) == 32, "linux/stat.h says 32");
_Static_assert(offsetof(struct which, major) == 136, "linux/stat.h says 136");
_Static_assert(sizeof(struct which) == 256, "linux/stat.h says 256");

/* writes a number in front of end; returns where it begins */
static char *
number_before(char *end, uint64_t number)
{
	do
		*--end = (char)('0' + number % 10);
	while (number /= 10);
	return end;
}

/* room is ROOM_FOR_FILE; returns how much of its end was filled: none if the kernel does not say */
enum { ROOM_FOR_FILE = 20 + 1 + 10 + 1 + 10 };

static size_t
which_file(int fd, char *room)
{
	char *end = room + ROOM_FOR_FILE, *at = end;
#ifdef SYS_statx
	struct which w;
	enum { INODE = 0x100 };         /* STATX_INO */

	if (fd >= 0 && !raw(SYS_statx, fd, (long)"", AT_EMPTY_PATH, INODE, (long)&w)) {
		at = number_before(at, w.minor);
		*--at = ':';
		at = number_before(at, w.major);
		*--at = ':';
		at = number_before(at, w.inode);
	}
#else
	(void)fd;
#endif
	return (size_t)(end - at);
}

void
record_opened(char kind, int dir, const char *path, int fd)
{
	char room[ROOM_FOR_FILE];
	int saved = errno;
	size_t n;
	struct text text2;

	if (!recording())
		return;
	n = which_file(fd, room);
	text2 = (struct text){{room + sizeof(room) - n}, {n}};
	record_one(kind, 0, dir, path, &text2);
	errno = saved;
}

void
record_link(int error, const char *target, int dir, const char *path)
{
	struct text text2 = {{target}, {error ? 0 : strnlen(target, PATH_MAX)}};

	record_one('L', error, dir, path, &text2);
}

void
record_look(int error, int dir, const char *path, enum asker by)
{
	static const struct text plugin = {{"plugin"}, {sizeof("plugin") - 1}};

	record_one('S', error, dir, path, by == BY_PLUGIN ? &plugin : NULL);
}

void
record_look_from(int dir, const char *path, const char *library, const uintptr_t *calls, size_t n)
{
	char digits[sizeof("plugin") + 8 * (1 + 2 * sizeof(*calls)) + 1] = "plugin";
	size_t length = sizeof("plugin") - 1;
	struct text text2;

	for (size_t i = 0; i < n && length + 2 + 2 * sizeof(*calls) < sizeof(digits); i++) {
		int shift = 8 * sizeof(*calls) - 4;

		digits[length++] = i ? ',' : ':';
		while (shift && !(calls[i] >> shift))
			shift -= 4;
		for (; shift >= 0; shift -= 4)
			digits[length++] = "0123456789abcdef"[calls[i] >> shift & 15];
	}
	digits[length++] = ':';
	text2 = (struct text){{digits, library}, {length, strnlen(library, PATH_MAX)}};
	record_one('S', 0, dir, path, &text2);
}

void
record_open_look(int fd, enum asker by)
{
	static const struct text plugin = {{"plugin"}, {sizeof("plugin") - 1}};
	static const struct text reader = {{"reader"}, {sizeof("reader") - 1}};
	char room[PATH_MAX];
	int saved = errno;
	struct text text1 = {{0}, {0}};

	/* a pipe, or "/x (deleted)", is no path that anyone could look at later */
	if (fd >= 0 && recording() && locate(&text1, fd, "", room)) {
		room[text1.length[0]] = 0;
		if (!raw(SYS_faccessat, AT_FDCWD, (long)room, F_OK, 0, 0))
			put('S', 0, &text1, by == BY_READER ? &reader : &plugin);
	}
	errno = saved;
}

void
record_paths(char kind, int error, int dir, const char *path, int dir2, const char *path2)
{
	char room[PATH_MAX];
	int saved = errno;
	struct text text2 = {{0}, {0}};

	/* linkat can take a descriptor and no name */
	if (error == EFAULT || !path || !(*path || dir >= 0) || !is_worth(error, path2) || !recording())
		return;
	if (locate(&text2, dir2, path2, room))
		record_relative(kind, error, dir, path, &text2);
	else if (error != EBADF)
		lose();
	errno = saved;
}

void
record_descriptor(char kind, int error, int fd)
{
	int saved = errno;

	if (!recording())
		return;
	record_relative(kind, error, fd, "", NULL);
	errno = saved;
}

void
record_path_number(char kind, int error, const char *path, long number)
{
	char digits[24];
	int saved = errno;
	char *end = digits + sizeof(digits), *at;
	struct text text2;

	if (!is_worth(error, path) || !recording())
		return;
	at = number_before(end, (uint64_t)number);
	text2 = (struct text){{at}, {(size_t)(end - at)}};
	record_relative(kind, error, AT_FDCWD, path, &text2);
	errno = saved;
}

void
record_text(char kind, int error, const char *text)
{
	struct text text1;

	if (!recording())
		return;
	text1 = (struct text){{text}, {strlen(text)}};
	put(kind, error, &text1, NULL);
}

void
record_variable(const char *name, int is_set, enum asker by)
{
	static const char *const askers[] = {"", "plugin", "search"};
	unsigned hash = (is_set ? 1 : 0) + 2 * (unsigned)by;
	int error = is_set ? 0 : ENOENT;
	const char *end;
	struct entry *e;
	struct text text1, text2 = {{askers[by]}, {strlen(askers[by])}};
	uint32_t at;

	if (!name || !recording())
		return;
	for (end = name; *end; end++)
		hash = hash * 31 + (unsigned char)*end;
	hash = (hash ^ hash >> 8) % 256;
	at = atomic_load_explicit(&asked[hash], memory_order_relaxed);
	if (at) {
		e = (struct entry *)(void *)((char *)region + (size_t)at * 8);
		if (e->error == error && !strcmp(e->text, name) && e->text[end - name + 1] == *askers[by])
			return;
	}
	text1 = (struct text){{name}, {(size_t)(end - name)}};
	e = put('E', error, &text1, &text2);
	if (e)
		atomic_store_explicit(&asked[hash], (uint32_t)(((char *)e - (char *)region) / 8), memory_order_relaxed);
}

const char *
ask_variable(const char *name, enum asker by)
{
	const char *value = variable(name);

	record_variable(name, value != NULL, by);
	return value;
}

void
record_clock(void)
{
	static _Atomic int was_recorded;

	if (recording() && !atomic_exchange_explicit(&was_recorded, 1, memory_order_relaxed))
		record_text('C', 0, "plugin");
}
