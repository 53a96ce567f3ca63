/* SPDX-License-Identifier: GPL-2.0-only */
/* The CPU time that ioctls take of the thread that calls them, by request: of the runner's and of Python's. */
#include <stddef.h>
#include <sys/ioctl.h>
#include <time.h>
#include "../../guests/runner.c"

enum { REQUESTS = 256, CALIBRATION = 10000 };

/* By the number of the request, _IOC_NR(). */
unsigned long measured_ns[REQUESTS], measured_calls[REQUESTS];

static unsigned long now(void)
{
	struct timespec at;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at);
	return at.tv_sec * 1000000000UL + at.tv_nsec;
}

static void add(unsigned long request, unsigned long begin)
{
	__atomic_fetch_add(&measured_ns[request & 0xff], now() - begin, __ATOMIC_RELAXED);
	__atomic_fetch_add(&measured_calls[request & 0xff], 1, __ATOMIC_RELAXED);
}

/* The nanoseconds that measuring adds to a call. */
double measured_overhead(void)
{
	unsigned long begin = now();
	int i;

	for (i = 0; i < CALIBRATION; i++)
		now();
	return (double)(now() - begin) / CALIBRATION;
}

/* In place of ioctl(2). */
int measured_ioctl(int fd, unsigned long request, void *arg)
{
	unsigned long begin = now();
	int done = ioctl(fd, request, arg);

	add(request, begin);
	return done;
}

/* In place of kvmtest_run(). */
u64 measured_run(struct op *ops, u64 at, u64 end)
{
	for (; at < end; at++) {
		unsigned long begin = ops[at].kind == IOCTL ? now() : 0;
		u64 reached = kvmtest_run(ops, at, at + 1);

		if (ops[at].kind == IOCTL)
			add(ops[at].request, begin);
		if (reached == at)
			return at;
	}
	return end;
}
