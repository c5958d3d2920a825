/* How an interposer is written.
 *
 *	OURS(int, access, (const char *path, int mode))
 *	{
 *		NEXT(int, access, (const char *path, int mode), -1)
 *		...
 *		return real(path, mode);
 *	}
 *
 * The function is called our_access in C and access for the linker.  So the
 * headers' prototypes do not get in the way (their nonnull attributes would
 * have gcc drop our NULL checks, their fortified and 64-bit forms are macros),
 * and types that we only hand on can be void. */

#ifndef OBSERVE_NEXT_H
#define OBSERVE_NEXT_H

#include <stdbool.h>

/* One function of the C library, or of whatever else is preloaded behind us. */
struct next {
	const char *name;
	void *function;
};

#define OURS(type, name, params) \
	__attribute__((visibility("default"))) type our_##name params __asm__(#name); \
	type our_##name params

/* declares real; returns failure, with errno set, if the C library has no such function.
 * The union: ISO C has no conversion from void * to a pointer to a function. */
#define NEXT(type, name, params, failure) \
	static struct next next __attribute__((section("observe_next"), used)) = {#name, NULL}; \
	union { void *object; type (*function) params; } found = {next_find(&next)}; \
	type (*real) params = found.function; \
	if (!real) \
		return failure;

/* The real function, or NULL with errno ENOSYS if there is none: Rust looks up statx
 * and others by name, finds ours, and takes that errno for an answer. */
void *next_find(struct next *n);

/* syscall(2) itself, for our own use: syscall() and open() are interposed. */
long raw(long number, long a, long b, long c, long d, long e);

/* Whether the code at this address belongs to a library that the program opened
 * by itself (dlopen): a proc-macro or a plugin, and not the compiler. */
bool is_plugin(const void *code);

#endif
