/* What the tests of the preload library run: a program that does little and does it on request.
 *
 *	probe call SPEC...      calls functions by name, each after getenv("mark-N"), and prints what came of it
 *	probe ask NAME TIMES    getenv, then the same after setenv
 *	probe crowd TIMES       two threads in each of two processes, all looking for files at once
 *	probe failing-exec      execv, execvp and execve of what is not there
 *	probe vfork             a child of vfork that fails to exec, then execs
 *	probe spawn             posix_spawn and posix_spawnp, successful and not
 *	probe closed            closes every descriptor, then looks for a file and opens one
 *	probe dlopen FILE       loads a library, prints what its function load() says if it has one, or dlerror
 *	probe handler           looks for a file in a signal handler
 *
 * SPEC is a function and its arguments, separated by spaces: #5 is a number, @ a buffer, ~ NULL, & a function, anything
 * else text.  A function that starts with * returns a pointer. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char buffer[1 << 16];

static int
no_entry(void)
{
	return 0;
}

static long
argument(char *word)
{
	switch (*word) {
	case '#':
		return strtol(word + 1, NULL, 0);
	case '@':
		return (long)buffer;
	case '~':
		return 0;
	case '&':
		return (long)no_entry;
	default:
		return (long)word;
	}
}

static void
call(char *spec)
{
	char *words[8] = {0}, *save = NULL;
	long (*function)(long, ...), a[7] = {0}, result;
	int n = 0, is_pointer;

	for (char *w = strtok_r(spec, " ", &save); w && n < 8; w = strtok_r(NULL, " ", &save))
		words[n++] = w;
	is_pointer = *words[0] == '*';
	*(void **)&function = dlsym(RTLD_DEFAULT, words[0] + is_pointer);
	if (!function) {
		printf("%s: absent\n", words[0]);
		return;
	}
	for (int i = 1; i < n; i++)
		a[i - 1] = argument(words[i]);
	errno = 0;
	result = function(a[0], a[1], a[2], a[3], a[4], a[5], a[6]);
	if (is_pointer ? !result : (int)result == -1)
		printf("%s: %s\n", words[0], strerror(errno));
	else
		printf("%s: done\n", words[0]);
}

static void *
look_often(void *arg)
{
	struct stat st;
	char path[64];

	for (long i = 0; i < *(long *)arg; i++) {
		snprintf(path, sizeof(path), "/absent/%d-%lu/%ld", (int)getpid(), (unsigned long)pthread_self(), i);
		stat(path, &st);
	}
	return NULL;
}

static void
crowd(long times)
{
	for (int i = 0; i < 2; i++)
		if (!fork()) {
			pthread_t t[2];
			for (int j = 0; j < 2; j++)
				pthread_create(&t[j], NULL, look_often, &times);
			for (int j = 0; j < 2; j++)
				pthread_join(t[j], NULL);
			exit(0);
		}
	while (wait(NULL) > 0)
		;
}

static void
on_signal(int signal)
{
	struct stat st;

	(void)signal;
	stat("/absent/in-handler", &st);
	stat("relative-in-handler", &st);
}

int
main(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	char *const arguments[] = {(char *)"true", NULL};

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!strcmp(what, "call")) {
		for (int i = 2; i < argc; i++) {
			char mark[32];
			snprintf(mark, sizeof(mark), "mark-%d", i - 2);
			getenv(mark);
			call(argv[i]);
		}
		getenv("mark-end");
	} else if (!strcmp(what, "ask")) {
		for (long i = 0; i < atol(argv[3]); i++)
			getenv(argv[2]);
		setenv(argv[2], "now set", 1);
		for (long i = 0; i < atol(argv[3]); i++)
			getenv(argv[2]);
		puts(getenv(argv[2]));
	} else if (!strcmp(what, "crowd")) {
		crowd(atol(argv[2]));
	} else if (!strcmp(what, "failing-exec")) {
		execv("/absent/a", arguments);
		perror("execv");
		execvp("absent-from-path", arguments);
		perror("execvp");
		execve("/", arguments, environ);
		perror("execve");
		execlp("true", "true", "one", "two", (char *)NULL);
		perror("execlp");
	} else if (!strcmp(what, "vfork")) {
		pid_t child = vfork();
		if (!child) {
			execv("/absent/a", arguments);
			execvp("true", arguments);
			_exit(127);
		}
		printf("%d\n", (int)child);
		waitpid(child, NULL, 0);
	} else if (!strcmp(what, "spawn")) {
		pid_t child;
		int error = posix_spawn(&child, "/absent/a", NULL, NULL, arguments, environ);
		printf("%s\n", strerror(error));
		error = posix_spawnp(&child, "absent-from-path", NULL, NULL, arguments, environ);
		printf("%s\n", strerror(error));
		error = posix_spawnp(&child, "true", NULL, NULL, arguments, environ);
		printf("%s %d\n", strerror(error), (int)child);
		waitpid(child, NULL, 0);
		error = posix_spawn(NULL, "/bin/true", NULL, NULL, arguments, environ);
		wait(NULL);
	} else if (!strcmp(what, "closed")) {
		struct stat st;
		for (int fd = 0; fd < 1024; fd++)
			close(fd);
		stat("/absent/when-closed", &st);
		return fopen("/dev/null", "r") ? 0 : 1;
	} else if (!strcmp(what, "dlopen")) {
		const char *(*load)(void) = NULL;
		void *handle = dlopen(argv[2], RTLD_NOW);
		int is_there = access("/absent/between", F_OK);  /* must not make dlerror forget */
		if (handle)
			*(void **)&load = dlsym(handle, "load");
		puts(!handle ? dlerror() : load ? load() : "loaded");
		return is_there == 0;
	} else if (!strcmp(what, "handler")) {
		/* as small as the system allows */
		stack_t small = {.ss_size = (size_t)MINSIGSTKSZ + 16384};
		struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
		small.ss_sp = malloc(small.ss_size);
		sigaltstack(&small, NULL);
		sigaction(SIGUSR1, &act, NULL);
		raise(SIGUSR1);
	}
	return 0;
}
