/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Runs ops in a row in one call, for kvmtest/engine/native.py, which makes them. This is code for the host's CPU: a shared object
 * that needs no C library, nor anything else.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64 __attribute__((may_alias));

enum kind {
	IOCTL,   /* ioctl(fd, request, address). The result goes to `other`; without that it has to be `value` at least. */
	PUT,     /* Write the bits of `mask` of `value` to the `size` bytes at `address`. */
	COMPARE, /* Are the bits of `mask` of the `size` bytes at `address` one of the `count` values at `other`, or none with `value`? */
	COPY,    /* Copy `count` bytes to `address` from `other`. */
	UPDATE,  /* Copy `count` bytes to `address` from `other`, and say in the byte at `value` whether they differed. */
};

struct op {
	u16 kind, size;
	int fd;
	u32 request, count;
	u64 address, other, value, mask;
	long done;
};

/* By which the other side knows that it means the same structure. */
const u32 kvmtest_op_size = sizeof(struct op);

enum { NR_IOCTL = 16, EINTR = 4, EIO = 5, EAGAIN = 11, ENOMEM = 12, LINE = 32 };

static long ask(const struct op *op)
{
	long done;

	asm volatile("syscall"
		     : "=a"(done)
		     : "0"((long)NR_IOCTL), "D"((long)op->fd), "S"((u64)op->request), "d"(op->address)
		     : "rcx", "r11", "memory");
	return done;
}

/* Not a refusal: KVM lacked memory or time. */
static int is_passing(long done)
{
	return done == -EINTR || done == -EIO || done == -EAGAIN || done == -ENOMEM;
}

static void copy(u64 to, u64 from, u64 count)
{
	asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
}

static u64 get(u64 address, u32 size)
{
	const u8 *at = (const u8 *)address;
	u64 value = 0;

	while (size--)
		value = value << 8 | at[size];
	return value;
}

static void put(u64 address, u32 size, u64 value)
{
	volatile u8 *at = (volatile u8 *)address;

	for (; size--; value >>= 8)
		*at++ = value;
}

static int is_one_of(u64 value, const u64 *values, u32 count)
{
	while (count--)
		if (*values++ == value)
			return 1;
	return 0;
}

/* `count` is a multiple of LINE. */
static int differ(const u64 *a, const u64 *b, u32 count)
{
	for (; count; count -= LINE, a += 4, b += 4)
		if ((a[0] ^ b[0]) | (a[1] ^ b[1]) | (a[2] ^ b[2]) | (a[3] ^ b[3]))
			return 1;
	return 0;
}

/* The first op of `at` to `end` that does not succeed, or `end`. */
u64 kvmtest_run(struct op *ops, u64 at, u64 end)
{
	for (; at < end; at++) {
		struct op *op = ops + at;

		switch (op->kind) {
		case IOCTL:
			op->done = ask(op);
			if (is_passing(op->done) || (!op->other && op->done < (long)op->value))
				return at;
			if (op->other)
				*(u64 *)op->other = op->done;
			break;
		case PUT:
			put(op->address, op->size, (get(op->address, op->size) & ~op->mask) | (op->value & op->mask));
			break;
		case COMPARE:
			op->done = get(op->address, op->size) & op->mask;
			if (is_one_of(op->done, (const u64 *)op->other, op->count) == !!op->value)
				return at;
			break;
		case COPY:
			copy(op->address, op->other, op->count);
			break;
		case UPDATE:
			*(u8 *)op->value = differ((const u64 *)op->address, (const u64 *)op->other, op->count);
			if (*(u8 *)op->value)
				copy(op->address, op->other, op->count);
			break;
		default:
			return at;
		}
	}
	return end;
}
