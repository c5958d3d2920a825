/* Preloaded with observe.c: records which variables are asked for, and who wants to know what time it is, which machine, or how large. */

#define _GNU_SOURCE
#include "observe_look.h"
#include "observe_next.h"
#include "observe_record.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

/* ---- variables ---- */

#define GETENV(name) \
	OURS(char *, name, (const char *variable_name)) \
	{ \
		NEXT(char *, name, (const char *), NULL) \
		char *value = real(variable_name); \
		record_variable(variable_name, value != NULL, is_plugin(__builtin_return_address(0)) ? BY_PLUGIN : BY_PROGRAM); \
		return value; \
	}

GETENV(getenv)
GETENV(secure_getenv)
#ifdef __GLIBC__
GETENV(__secure_getenv)
#endif

/* setlocale(3): the order in which they are consulted does not matter here */
static void
asked_locale(const char *locale)
{
	static const char *const names[] = {
		"LC_ALL", "LC_COLLATE", "LC_CTYPE", "LC_MESSAGES", "LC_MONETARY",
		"LC_NUMERIC", "LC_TIME", "LANG", "LANGUAGE", "LOCPATH", "OUTPUT_CHARSET",
	};

	if (locale && !*locale)
		for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
			ask_variable(names[i], BY_PROGRAM);
}

static void
looked_for(const char *place, size_t length, const char *name, bool is_codeset_plain)
{
	char path[PATH_MAX];
	bool is_codeset = false, is_made_plain;
	char c;

	if (length + strlen(name) + 2 > sizeof(path))
		return;
	memcpy(path, place, length);
	path[length++] = '/';
	for (; *name; name++) {
		is_codeset = *name == '.' || (is_codeset && *name != '@');
		/* en_US.UTF-8 lies in en_US.utf8 */
		is_made_plain = is_codeset_plain && is_codeset && *name != '.';
		c = is_made_plain ? *name | 0x20 : *name;  /* makes a letter small and leaves a digit */
		if (!is_made_plain || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'))
			path[length++] = c;
	}
	path[length] = 0;
	record_path('S', raw(SYS_faccessat, AT_FDCWD, (long)path, F_OK, 0, 0) < 0 ? errno : 0, AT_FDCWD, path);
}

/* The C library speaks plain English, in ASCII, for want of a locale: where one would be found. */
static void
lacks_locale(void)
{
	static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LC_MESSAGES", "LANG"};
	const char *places = variable("LOCPATH");
	size_t length;

	if (!places || !*places) {
		places = "/usr/lib/locale";
		looked_for(places, strlen(places), "locale-archive", false);
	}
	for (;; places += length + 1) {
		length = strcspn(places, ":");
		for (size_t i = 0; length && i < sizeof(names) / sizeof(*names); i++) {
			const char *value = variable(names[i]);

			if (value && *value && !strchr(value, '/')) {
				looked_for(places, length, value, false);
				looked_for(places, length, value, true);
			}
		}
		if (!places[length])
			return;
	}
}

OURS(char *, setlocale, (int category, const char *locale))
{
	NEXT(char *, setlocale, (int, const char *), NULL)
	int saved = errno;

	asked_locale(locale);
	char *result = real(category, locale);
	if (!result && locale && !*locale) {
		lacks_locale();
		errno = saved;
	}
	return result;
}

#define NEWLOCALE(name) \
	OURS(void *, name, (int mask, const char *locale, void *base)) \
	{ \
		NEXT(void *, name, (int, const char *, void *), NULL) \
		asked_locale(locale); \
		return real(mask, locale, base); \
	}

NEWLOCALE(newlocale)
#ifdef __GLIBC__
NEWLOCALE(__newlocale)
#endif

OURS(void *, iconv_open, (const char *to, const char *from))
{
	NEXT(void *, iconv_open, (const char *, const char *), (void *)-1)
	ask_variable("GCONV_PATH", BY_PROGRAM);
	return real(to, from);
}

OURS(int, getopt, (int argc, char *const argv[], const char *letters))
{
	NEXT(int, getopt, (int, char *const [], const char *), -1)
	ask_variable("POSIXLY_CORRECT", BY_PROGRAM);
	return real(argc, argv, letters);
}

#define GETOPT_LONG(name) \
	OURS(int, name, (int argc, char *const argv[], const char *letters, const void *words, int *index)) \
	{ \
		NEXT(int, name, (int, char *const [], const char *, const void *, int *), -1) \
		ask_variable("POSIXLY_CORRECT", BY_PROGRAM); \
		return real(argc, argv, letters, words, index); \
	}

GETOPT_LONG(getopt_long)
GETOPT_LONG(getopt_long_only)

OURS(struct tm *, localtime, (const time_t *t))
{
	NEXT(struct tm *, localtime, (const time_t *), NULL)
	ask_variable("TZ", BY_PROGRAM);
	return real(t);
}

OURS(struct tm *, localtime_r, (const time_t *t, struct tm *to))
{
	NEXT(struct tm *, localtime_r, (const time_t *, struct tm *), NULL)
	ask_variable("TZ", BY_PROGRAM);
	return real(t, to);
}

OURS(time_t, mktime, (struct tm *tm))
{
	NEXT(time_t, mktime, (struct tm *), -1)
	ask_variable("TZ", BY_PROGRAM);
	return real(tm);
}

OURS(void, tzset, (void))
{
	NEXT(void, tzset, (void), )
	ask_variable("TZ", BY_PROGRAM);
	real();
}

OURS(char *, get_current_dir_name, (void))
{
	NEXT(char *, get_current_dir_name, (void), NULL)
	ask_variable("PWD", BY_PROGRAM);
	told_place(__builtin_return_address(0));
	return real();
}

OURS(char *, getcwd, (char *to, size_t size))
{
	NEXT(char *, getcwd, (char *, size_t), NULL)
	told_place(__builtin_return_address(0));
	return real(to, size);
}

#ifdef __GLIBC__
OURS(char *, __getcwd_chk, (char *to, size_t size, size_t room))
{
	NEXT(char *, __getcwd_chk, (char *, size_t, size_t), NULL)
	told_place(__builtin_return_address(0));
	return real(to, size, room);
}
#endif

/* ---- the whole environment ---- */

/* Where the kernel put the variables at start, one behind the other. */
static struct {
	const char *from, *to;
} entries;

__attribute__((constructor)) static void
find_entries(void)
{
	if (environ)
		entries.from = entries.to = *environ;
	for (char **entry = environ; entry && *entry && *entry == entries.to; entry++)
		entries.to = strchr(*entry, 0) + 1;
}

/* std::env::vars asks for nothing: it walks environ and measures each entry.  Who
 * was answered by getenv measures what is behind the "=". */
OURS(size_t, strlen, (const char *text))
{
	/* not NEXT: that looks the function up by its name's length */
	static struct next next __attribute__((section("observe_next"), used)) = {"strlen", NULL};
	union { void *object; size_t (*function)(const char *); } found = {__atomic_load_n(&next.function, __ATOMIC_RELAXED)};
	size_t n = 0;

	if (text >= entries.from && text < entries.to && (text == entries.from || !text[-1]) &&
	    is_plugin(__builtin_return_address(0)))
		record_variable("", 1, BY_PLUGIN);
	if (found.function)
		return found.function(text);
	for (const volatile char *at = text; at[n]; n++)  /* volatile: else gcc makes a call of strlen of it */
		;
	return n;
}

/* ---- the clock ---- */

/* A compiler measures itself all the time; what a proc-macro or a plugin wants to know
 * goes into the output.  How much time has passed (CLOCK_MONOTONIC) does not. */
static void
told_time(const void *caller)
{
	int saved = errno;

	if (is_plugin(caller))
		record_clock();
	errno = saved;
}

static int
is_of_the_day(long clock)
{
	return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI;
}

OURS(int, clock_gettime, (int clock, void *to))
{
	NEXT(int, clock_gettime, (int, void *), -1)
	if (is_of_the_day(clock))
		told_time(__builtin_return_address(0));
	return real(clock, to);
}

OURS(int, gettimeofday, (void *to, void *zone))
{
	NEXT(int, gettimeofday, (void *, void *), -1)
	told_time(__builtin_return_address(0));
	return real(to, zone);
}

OURS(time_t, time, (time_t *to))
{
	NEXT(time_t, time, (time_t *), -1)
	told_time(__builtin_return_address(0));
	return real(to);
}

OURS(int, timespec_get, (void *to, int base))
{
	NEXT(int, timespec_get, (void *, int), 0)
	told_time(__builtin_return_address(0));
	return real(to, base);
}

/* ---- the machine ---- */

/* As if it had read the file that says so. */
static int
told_host(const void *caller, int result)
{
	if (is_plugin(caller))
		record_path('R', 0, AT_FDCWD, "/proc/sys/kernel/hostname");
	return result;
}

OURS(int, gethostname, (char *to, size_t size))
{
	NEXT(int, gethostname, (char *, size_t), -1)
	return told_host(__builtin_return_address(0), real(to, size));
}

OURS(int, uname, (void *to))
{
	NEXT(int, uname, (void *), -1)
	return told_host(__builtin_return_address(0), real(to));
}

/* How large it is decides about threads and heaps, and a macro may write it down (std::thread::available_parallelism). */
static const char processors[] = "/sys/devices/system/cpu/online", memory[] = "/proc/meminfo";

OURS(int, sched_getaffinity, (pid_t pid, size_t size, void *set))
{
	NEXT(int, sched_getaffinity, (pid_t, size_t, void *), -1)
	told_machine(processors, __builtin_return_address(0));
	return real(pid, size, set);
}

OURS(long, sysconf, (int name))
{
	NEXT(long, sysconf, (int), -1)
	if (name == _SC_NPROCESSORS_ONLN || name == _SC_NPROCESSORS_CONF)
		told_machine(processors, __builtin_return_address(0));
	else if (name == _SC_PHYS_PAGES || name == _SC_AVPHYS_PAGES)
		told_machine(memory, __builtin_return_address(0));
	return real(name);
}

OURS(int, sysinfo, (void *to))
{
	NEXT(int, sysinfo, (void *), -1)
	told_machine(memory, __builtin_return_address(0));
	return real(to);
}

#ifdef __GLIBC__
#define GET_NPROCS(name) \
	OURS(int, name, (void)) \
	{ \
		NEXT(int, name, (void), 1) \
		told_machine(processors, __builtin_return_address(0)); \
		return real(); \
	}

GET_NPROCS(get_nprocs)
GET_NPROCS(get_nprocs_conf)
#endif
