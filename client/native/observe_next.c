#define _GNU_SOURCE
#include "observe_next.h"
#include "observe_record.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdint.h>
#include <string.h>

/* the linker makes these two */
extern struct next __start_observe_next[] __attribute__((visibility("hidden")));
extern struct next __stop_observe_next[] __attribute__((visibility("hidden")));

static void *
look_up(const char *name)
{
	void *f = dlsym(RTLD_NEXT, name);
	size_t n = strlen(name);
	char plain[24];

	/* musl 1.2.4 and later resolve open64 when they load a program, not here */
	if (!f && n > 2 && n < sizeof(plain) && !strcmp(name + n - 2, "64")) {
		memcpy(plain, name, n - 2);
		plain[n - 2] = 0;
		f = dlsym(RTLD_NEXT, plain);
	}
	return f;
}

void *
next_find(struct next *n)
{
	void *f = __atomic_load_n(&n->function, __ATOMIC_RELAXED);
	int saved = errno;

	if (!f) {
		f = look_up(n->name);
		__atomic_store_n(&n->function, f, __ATOMIC_RELAXED);
		errno = f ? saved : ENOSYS;
	}
	return f;
}

long
raw(long number, long a, long b, long c, long d, long e)
{
	NEXT(long, syscall, (long, ...), -1)
	return real(number, a, b, c, d, e);
}

/* Where the code of the program and of the libraries that it was linked with lies.
 * More than fit are rather taken for plugins. */
static struct range {
	uintptr_t from, to;
} program[128];
static size_t in_program;

static void
add_to_program(const struct dl_phdr_info *info)
{
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *segment = &info->dlpi_phdr[i];

		if (segment->p_type != PT_LOAD || !(segment->p_flags & PF_X) ||
		    in_program == sizeof(program) / sizeof(*program))
			continue;
		program[in_program].from = info->dlpi_addr + segment->p_vaddr;
		program[in_program].to = program[in_program].from + segment->p_memsz;
		in_program++;
	}
}

bool
is_plugin(const void *code)
{
	uintptr_t at = (uintptr_t)code;

	for (size_t i = 0; i < in_program; i++)
		if (at >= program[i].from && at < program[i].to)
			return false;
	return in_program > 0;          /* none yet: a constructor of another library came before ours */
}

/* What ld.so has loaded before anyone could see it open files: the program's
 * libraries are inputs like the program itself. */
static int
record_library(struct dl_phdr_info *info, size_t size, void *unused)
{
	(void)size;
	(void)unused;
	add_to_program(info);
	if (info->dlpi_name && strchr(info->dlpi_name, '/'))  /* the program and the vdso have none */
		record_path('I', 0, AT_FDCWD, info->dlpi_name);
	return 0;
}

/* All at once and not when they are first called: dlsym takes a lock, which a
 * signal handler must not, and drops the message that the program's own dlerror
 * may be about to ask for.  It takes 25 µs. */
__attribute__((constructor)) static void
find_all(void)
{
	int missing = 0;

	record_begin();
	dl_iterate_phdr(record_library, NULL);
	for (struct next *n = __start_observe_next; n < __stop_observe_next; n++)
		if (!n->function) {
			n->function = look_up(n->name);
			missing |= !n->function;
		}
	/* twice: the first formats the message, the second frees it */
	if (missing && dlerror())
		dlerror();
}
