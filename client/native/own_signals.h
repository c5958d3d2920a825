#ifndef SCCACHE_OWN_SIGNALS_H
#define SCCACHE_OWN_SIGNALS_H

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

/* The C library's own signals, which its sigaction does not touch, nor tell of.
 * Its posix_spawn has them ignored in whoever it starts: make's recipes, say. */
enum { OWN_SIGNAL = 32, OWN_SIGNALS = 2 };

/* rt_sigaction(2): the handler is the first of the kernel's fields, but for MIPS. */
#ifdef __mips__
enum { HANDLER = 1, MASK_BYTES = 16 };
#else
enum { HANDLER = 0, MASK_BYTES = 8 };
#endif

static inline int
own_signal_is_ignored(int number)
{
	unsigned long action[16] = {0};
	return syscall(SYS_rt_sigaction, number, NULL, action, MASK_BYTES) == 0 && action[HANDLER] == (unsigned long)SIG_IGN;
}

static inline void
set_own_signal(int number, int ignored)
{
	unsigned long action[16] = {0};
	action[HANDLER] = (unsigned long)(ignored ? SIG_IGN : SIG_DFL);
	syscall(SYS_rt_sigaction, number, action, NULL, MASK_BYTES);
}

#endif
