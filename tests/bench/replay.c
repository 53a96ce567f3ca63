/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Issues a recorded list of ioctls over and over and compares nothing: the yardstick for the engine's rate.
 *
 * usage: replay LIST CYCLES
 *
 * LIST has a line for each ioctl: "S" (once, before) or "C" (in every cycle); whose: "k" /dev/kvm, "v" the VM, "0" and "1"
 * the vCPUs; the request in hex; then "i" and an integer in hex, or "b" and a buffer in hex. Prints cycles per second.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <linux/kvm.h>

struct op {
	int fd;
	unsigned long request;
	unsigned long arg;
	unsigned char *buffer;
	unsigned char *fresh;
	size_t size;
	int refill;
};

static int fds[128];
static unsigned long long one_reg;

static int issue(const struct op *op)
{
	int r;

	/* The engine sets a size field anew before this one; so does this. */
	if (op->refill)
		memcpy(op->buffer, op->fresh, 8);
	r = ioctl(op->fd, op->request, op->buffer ? (unsigned long)op->buffer : op->arg);
	if (r < 0) {
		fprintf(stderr, "ioctl %lx: %s\n", op->request, strerror(errno));
		exit(1);
	}
	return r;
}

int main(int argc, char **argv)
{
	static char hex[1 << 20];
	static struct op ops[256];
	char when, whose, kind;
	struct timespec a, b;
	size_t n = 0, i;
	long cycles, c;
	double seconds;
	FILE *f;

	if (argc != 3 || !(f = fopen(argv[1], "r"))) {
		fprintf(stderr, "usage: replay LIST CYCLES\n");
		return 2;
	}
	cycles = strtol(argv[2], NULL, 10);
	fds['k'] = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	for (;;) {
		struct op op = { 0 };

		if (fscanf(f, " %c %c %lx %c %1048575s", &when, &whose, &op.request, &kind, hex) != 5)
			break;
		op.fd = fds[(int)whose];
		if (kind == 'i') {
			op.arg = strtoul(hex, NULL, 16);
		} else {
			op.size = strlen(hex) / 2;
			op.buffer = malloc(op.size);
			op.fresh = malloc(op.size);
			for (i = 0; i < op.size; i++) {
				unsigned int byte;

				sscanf(hex + 2 * i, "%2x", &byte);
				op.buffer[i] = op.fresh[i] = byte;
			}
			/* struct kvm_one_reg points to the value. */
			if (op.request == KVM_GET_ONE_REG || op.request == KVM_SET_ONE_REG)
				((struct kvm_one_reg *)op.buffer)->addr = (unsigned long)&one_reg;
			op.refill = op.request == KVM_GET_NESTED_STATE;
		}
		if (when == 'S') {
			int r = issue(&op);

			if (op.request == KVM_CREATE_VM)
				fds['v'] = r;
			if (op.request == KVM_CREATE_VCPU)
				fds['0' + op.arg] = r;
		} else if (n < sizeof(ops) / sizeof(ops[0])) {
			ops[n++] = op;
		}
	}
	for (c = 0; c < cycles / 10; c++)
		for (i = 0; i < n; i++)
			issue(&ops[i]);
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (c = 0; c < cycles; c++)
		for (i = 0; i < n; i++)
			issue(&ops[i]);
	clock_gettime(CLOCK_MONOTONIC, &b);
	seconds = (b.tv_sec - a.tv_sec) + (b.tv_nsec - a.tv_nsec) / 1e9;
	printf("%.1f %zu\n", cycles / seconds, n);
	return 0;
}
