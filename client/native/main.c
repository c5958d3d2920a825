/* The client: what the words of the command line mean.
 *
 *   sccache-py [--] COMPILER ARGS…  ask the server; relay its answer or become the compiler
 *   gcc ARGS…                       the same, through a link named like a compiler
 *   sc COMPILER ARGS…               the same, through a link named like no program
 *   sccache-py --child SPEC …       become a compiler on the server's behalf (child.c)
 *   sccache-py --show-stats …       everything else is sccache-py-ctl's
 *
 * Until the server has said "started", any trouble ends in becoming the
 * compiler.  A cache must never be the reason a build fails. */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "become.h"
#include "child.h"
#include "descriptors.h"
#include "input.h"
#include "place.h"
#include "relay.h"
#include "request.h"
#include "start.h"

extern char **environ;

enum {
	LEAVING_MS = 1000, /* how long to wait for a server of another version to go */
	LEAVING_STEP_MS = 5,
};

/* Returns a connected server, started by us if need be, but only once. */
static int
find_connection(const struct place *place, int *started)
{
	if (!place_is_safe(place, 0) && errno != ENOENT)
		return -1;
	int fd = dial(place);
	if (fd >= 0 || (errno != ENOENT && errno != ECONNREFUSED) || *started)
		return fd;
	*started = 1;
	return start_and_dial(place);
}

/* Returns if the compiler is for us to run. */
static void
converse(const struct place *place, const struct request *request, struct input *input)
{
	int server, started = 0;
	long patience = 0;
	while ((server = find_connection(place, &started)) >= 0) {
		if (relay(place, server, request, input) == OURS_TO_RUN)
			return;
		if (started) {
			/* the server that is installed beside us is of another version than we
			 * are: starting it for each compile would cost more than it gives */
			stamp_failure(place);
			break;
		}
		if (!patience)
			patience = now_ms() + LEAVING_MS;
		if (now_ms() >= patience)
			break;
		pause_ms(LEAVING_STEP_MS);
	}
	note_uncounted(place);
}

static _Noreturn void
compile(const char *program, char **argv)
{
	struct place place;
	struct request request;
	struct input input = {0};
	if (find_place(&place) == 0 && build_request(&request, program, argv) == 0)
		converse(&place, &request, &input);
	give_back(&input);
	become(program, argv);
}

static _Noreturn void wrap_command(char **argv, const struct self *self);

/* Searches the compiler in PATH.  Its argv[0] stays as it is, unless a search
 * for it would end at ourselves: gcc looks for argv[0] in PATH, and for cc1
 * beside what it finds there (gcc 12: "cannot execute 'cc1'"). */
static _Noreturn void
wrap(char **argv, const char *name, const struct self *self, int passed)
{
	static char file[PATH_MAX];
	int error = find_program(name, self, file, &passed);
	if (error == ENOENT && passed && argv[1] && names_program(argv[1], self))
		wrap_command(argv + 1, self); /* no compiler's name: a link to us */
	if (error)
		cannot_become(argv[0], error);
	if (passed)
		argv[0] = file;
	compile(file, argv);
}

static _Noreturn void
wrap_command(char **argv, const struct self *self)
{
	/* RUSTC_WRAPPER and RUSTC_WORKSPACE_WRAPPER may both be us */
	while (argv[0] && is_own_name(base_name(argv[0])) && leads_to_self(argv[0], self))
		argv++;
	if (!argv[0])
		exit(0);
	if (!strchr(argv[0], '/'))
		wrap(argv, argv[0], self, 0);
	if (leads_to_self(argv[0], self))
		wrap(argv, base_name(argv[0]), self, 1);
	compile(argv[0], argv);
}

static _Noreturn void
run_control(char **argv)
{
	char file[PATH_MAX], self[PATH_MAX];
	const char *given = getenv("SCCACHE_PY_CTL");
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	self[n > 0 ? n : 0] = '\0';
	setenv("SCCACHE_PY_CLIENT", self, 1);
	if (given && *given)
		snprintf(file, sizeof(file), "%s", given);
	else if (find_beside("sccache-py-ctl", file) < 0)
		file[0] = '\0';
	const char *word = argv[1] ? argv[1] : "";
	if (strncmp(word, "--jobserver", 11) != 0) /* which runs a command of the caller's */
		drop_callers_code();
	if (file[0])
		execve(file, argv, environ);
	int error = errno;
	if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) {
		puts("sccache-py " SCCACHE_VERSION " (native client)");
		exit(0);
	}
	cannot_become(file[0] ? file : "sccache-py-ctl", error);
}

static _Noreturn void
run_server(void)
{
	struct place place;
	char file[PATH_MAX], native[PATH_MAX];
	if (find_place(&place) < 0 || find_server(file) < 0 || find_beside("", native) < 0)
		cannot_become("sccache-py-server", ENAMETOOLONG);
	if (!place_is_safe(&place, 1))
		cannot_become(place.runtime, EACCES);
	*strrchr(native, '/') = '\0';
	char *argv[] = {
		file, (char[]){"--socket"}, place.name, (char[]){"--native"},
		native[0] ? native : (char[]){"/"}, (char[]){"--foreground"}, NULL,
	};
	drop_callers_code();
	become(file, argv);
}

int
main(int argc, char **argv)
{
	struct self self = find_self();
	if (argc < 1)
		return 127;
	const char *name = base_name(argv[0]);
	if (!is_own_name(name))
		wrap(argv, name, &self, 1);
	if (argc > 1 && strcmp(argv[1], "--child") == 0)
		run_child(argv + 2);
	const char *start = getenv("SCCACHE_START_SERVER");
	if (argc == 1 && start && strcmp(start, "1") == 0)
		run_server();
	if (argc > 2 && strcmp(argv[1], "--") == 0)
		argv++; /* as sccache reads it: no options of ours */
	else if (argc == 1 || argv[1][0] == '-')
		run_control(argv);
	wrap_command(argv + 1, &self);
}
