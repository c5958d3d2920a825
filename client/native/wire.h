#ifndef SCCACHE_WIRE_H
#define SCCACHE_WIRE_H

#include <stddef.h>
#include <stdint.h>

/* docs/protocol.md, section 2; the same words as in sccache_py/wire.py */
enum {
	PROTOCOL = 1,
	MAX_FRAME = 8 * 1024 * 1024,
	MAX_STDIN = 1024 * 1024,
	HEADER_SIZE = 5,
};

enum kind {
	KIND_REQUEST = 1,
	KIND_SIGNAL = 2,
	KIND_STDIN = 3,
	KIND_ALIVE_WANTED = 6,
	KIND_PASS = 16,
	KIND_STARTED = 17,
	KIND_STDOUT = 18,
	KIND_STDERR = 19,
	KIND_EXIT = 20,
	KIND_STDIN_WANTED = 21,
	KIND_LEAVING = 23,
	KIND_ALIVE = 25,
};

/* Bytes being written; `full` is set instead of writing past `room`. */
struct writer {
	unsigned char *at;
	size_t used, room;
	int full;
};

void put_header(unsigned char header[HEADER_SIZE], uint32_t length, enum kind kind);
uint32_t read_u32(const unsigned char *p);

/* msgpack */
void put_array(struct writer *w, size_t elements);
void put_uint(struct writer *w, uint64_t value);
void put_int(struct writer *w, long value); /* -32 … 127: enough for a niceness */
void put_bin(struct writer *w, const void *bytes, size_t n);
void put_text(struct writer *w, const char *text);

#endif
