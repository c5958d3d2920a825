#include "wire.h"

#include <string.h>

static void
put_bytes(struct writer *w, const void *bytes, size_t n)
{
	if (n > w->room - w->used) {
		w->full = 1;
		return;
	}
	if (n)
		memcpy(w->at + w->used, bytes, n);
	w->used += n;
}

/* a type byte, then a big-endian number: the one exception from
 * little-endian here is msgpack's own (its specification, "formats") */
static void
put_number(struct writer *w, unsigned char type, uint64_t value, size_t bytes)
{
	unsigned char out[9] = {type};
	for (size_t i = bytes; i > 0; i--, value >>= 8)
		out[i] = (unsigned char)value;
	put_bytes(w, out, bytes + 1);
}

void
put_array(struct writer *w, size_t elements)
{
	if (elements < 16)
		put_number(w, (unsigned char)(0x90 | elements), 0, 0);
	else if (elements < 0x10000)
		put_number(w, 0xdc, elements, 2);
	else
		put_number(w, 0xdd, elements, 4);
}

void
put_uint(struct writer *w, uint64_t value)
{
	if (value < 0x80)
		put_number(w, (unsigned char)value, 0, 0);
	else if (value < 0x100)
		put_number(w, 0xcc, value, 1);
	else if (value < 0x10000)
		put_number(w, 0xcd, value, 2);
	else if (value < UINT64_C(0x100000000))
		put_number(w, 0xce, value, 4);
	else
		put_number(w, 0xcf, value, 8);
}

void
put_int(struct writer *w, long value)
{
	put_number(w, (unsigned char)value, 0, 0);
}

void
put_bin(struct writer *w, const void *bytes, size_t n)
{
	if (n < 0x100)
		put_number(w, 0xc4, n, 1);
	else if (n < 0x10000)
		put_number(w, 0xc5, n, 2);
	else
		put_number(w, 0xc6, n, 4);
	put_bytes(w, bytes, n);
}

void
put_text(struct writer *w, const char *text)
{
	put_bin(w, text, strlen(text));
}

void
put_header(unsigned char header[HEADER_SIZE], uint32_t length, enum kind kind)
{
	for (int i = 0; i < 4; i++)
		header[i] = (unsigned char)(length >> 8 * i);
	header[4] = (unsigned char)kind;
}

uint32_t
read_u32(const unsigned char *p)
{
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
