#ifndef SCCACHE_CHILD_H
#define SCCACHE_CHILD_H

/* --child SPEC PROGRAM ARGV0 ARG…: takes on what SPEC says and becomes the
 * program (docs/protocol.md, section 3).  argv[0] is SPEC. */
_Noreturn void run_child(char **argv);

#endif
