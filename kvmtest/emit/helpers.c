// SPDX-License-Identifier: GPL-2.0-only
/*
 * The functions that reproducers begin with, each only where it is used: what
 * stands between two lines that begin with "/// name", with what it needs of
 * libc.
 */

/// need: errno.h stdio.h stdlib.h

/* A precondition: a KVM that lacks it has nothing to show. */
static int need(int ret, const char *what)
{
	if (ret >= 0)
		return ret;
	printf("ok 1 # SKIP %s (errno %d)\n", what, errno);
	exit(4);
}

/// kvm_ioctl: sys/ioctl.h

#define kvm_ioctl(fd, request, arg) need(ioctl(fd, request, arg), #request)

/// require

#define require(condition, why) need((condition) ? 0 : -1, why)

/// try_ioctl: errno.h sys/ioctl.h

static int try_ioctl(int fd, unsigned long request, void *arg)
{
	int ret = ioctl(fd, request, arg);

	return ret < 0 ? -errno : ret;
}

/// report

static int report(int number, const char *item, __u64 observed, __u64 expected)
{
	int failed = observed != expected;

	printf("%sok %d %s: expected %#llx, observed %#llx\n",
	       failed ? "not " : "", number, item, expected, observed);
	return failed;
}

/// get_msr

static __u64 get_msr(int vcpu, __u32 index)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msr = { .head.nmsrs = 1, .entry.index = index };

	need(kvm_ioctl(vcpu, KVM_GET_MSRS, &msr) - 1, "KVM_GET_MSRS of one");
	return msr.entry.data;
}

/// set_msr

static void set_msr(int vcpu, __u32 index, __u64 value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msr = { .head.nmsrs = 1, .entry = { .index = index, .data = value } };

	need(kvm_ioctl(vcpu, KVM_SET_MSRS, &msr) - 1, "KVM_SET_MSRS of one");
}

/// msr_ioctl

/* The number of MSRs that KVM accepted or returned: one, or none. */
static int msr_ioctl(int vcpu, unsigned long request, __u32 index, __u64 *value)
{
	struct {
		struct kvm_msrs head;
		struct kvm_msr_entry entry;
	} msr = { .head.nmsrs = 1, .entry = { .index = index, .data = *value } };
	int ret = try_ioctl(vcpu, request, &msr);

	*value = msr.entry.data;
	return ret;
}

/// lapic_reg

static __u32 *lapic_reg(struct kvm_lapic_state *lapic, int offset)
{
	return (__u32 *)(lapic->regs + offset);
}

/// field: string.h

static __u64 field(const void *from, int offset, int size)
{
	__u64 value = 0;

	memcpy(&value, (const char *)from + offset, size);
	return value;
}

/// set_field: string.h

static void set_field(void *to, int offset, int size, __u64 value)
{
	memcpy((char *)to + offset, &value, size);
}

/// leaf

static struct kvm_cpuid_entry2 *leaf(struct kvm_cpuid_entry2 *entries,
				     __u32 function, __u32 index)
{
	while (entries->function != function || entries->index != index)
		entries++;
	return entries;
}

/// listed

/* True if KVM_GET_MSR_INDEX_LIST has this MSR, so that a VMM saves it. */
static int listed(int kvm, __u32 index)
{
	struct {
		struct kvm_msr_list head;
		__u32 indices[1024];
	} list = { .head.nmsrs = 1024 };
	__u32 i;

	kvm_ioctl(kvm, KVM_GET_MSR_INDEX_LIST, &list);
	for (i = 0; i < list.head.nmsrs; i++) {
		if (list.indices[i] == index)
			return 1;
	}
	return 0;
}

/// map_run: sys/mman.h

static struct kvm_run *map_run(int kvm, int vcpu)
{
	int size = kvm_ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	void *run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu,
			 0);

	require(run != MAP_FAILED, "mmap() of a vCPU");
	return run;
}

/// stoppable: signal.h

static struct kvm_run *running;

static void stop(int signal)
{
	(void)signal;
	running->immediate_exit = 1;
}

/* Have SIGALRM end this vCPU's KVM_RUN. */
static void stoppable(struct kvm_run *run)
{
	struct sigaction action = { .sa_handler = stop };

	running = run;
	sigaction(SIGALRM, &action, NULL);
}

/// enter: errno.h sys/ioctl.h sys/time.h

/* KVM_RUN: the reason of the exit to userspace, or -EINTR for none in time. */
static int enter(int vcpu, struct kvm_run *run, int ms)
{
	struct itimerval timer = {
		.it_value = { ms / 1000, ms % 1000 * 1000 },
	};
	int ret;

	stoppable(run);
	setitimer(ITIMER_REAL, &timer, NULL);
	do {
		ret = ioctl(vcpu, KVM_RUN, 0) < 0 ? -errno : (int)run->exit_reason;
	} while (ret == -EAGAIN);
	timer.it_value = (struct timeval){};
	setitimer(ITIMER_REAL, &timer, NULL);
	run->immediate_exit = 0;
	return ret;
}

/// finish

/* Complete the I/O of the last exit, and run nothing. */
static void finish(int vcpu, struct kvm_run *run)
{
	run->immediate_exit = 1;
	ioctl(vcpu, KVM_RUN, 0);
	run->immediate_exit = 0;
}

/// said: string.h

static __u32 said(struct kvm_run *run)
{
	__u32 value = 0;

	memcpy(&value, (char *)run + run->io.data_offset, run->io.size);
	return value;
}

/// is_out

static int is_out(struct kvm_run *run, int exit, int port)
{
	return exit == KVM_EXIT_IO && run->io.direction == KVM_EXIT_IO_OUT &&
	       run->io.port == port;
}

/// is_in

static int is_in(struct kvm_run *run, int exit, int port)
{
	return exit == KVM_EXIT_IO && run->io.direction == KVM_EXIT_IO_IN &&
	       run->io.port == port;
}

/// add_memory: sys/mman.h

static void *add_memory(int vm, int slot, __u64 gpa, __u64 size)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot, .guest_phys_addr = gpa, .memory_size = size,
	};
	void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	require(memory != MAP_FAILED, "mmap() of guest memory");
	region.userspace_addr = (unsigned long)memory;
	kvm_ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
	return memory;
}

/// add_logged_memory: sys/mman.h

/* The same, with a log of the pages that are written. */
static void *add_logged_memory(int vm, int slot, __u64 gpa, __u64 size)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot, .guest_phys_addr = gpa, .memory_size = size,
		.flags = KVM_MEM_LOG_DIRTY_PAGES,
	};
	void *memory = add_memory(vm, slot, gpa, size);

	region.userspace_addr = (unsigned long)memory;
	kvm_ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
	return memory;
}

/// keep_memory

/* Give a VM the memory that another one had. */
static void keep_memory(int vm, int slot, __u64 gpa, __u64 size, void *memory)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot, .guest_phys_addr = gpa, .memory_size = size,
		.userspace_addr = (unsigned long)memory,
	};

	kvm_ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region);
}

/// start: pthread.h unistd.h

struct thread {
	pthread_t id;
	int vcpu;
	struct kvm_run *run;
	int exit;
};

static void *run_thread(void *arg)
{
	struct thread *thread = arg;

	do {
		thread->exit = ioctl(thread->vcpu, KVM_RUN, 0) < 0 ?
			       -errno : (int)thread->run->exit_reason;
	} while (thread->exit == -EAGAIN);
	return NULL;
}

/* Let a vCPU run on a thread of its own, and give it time to get there. */
static void start(struct thread *thread, int vcpu, struct kvm_run *run)
{
	thread->vcpu = vcpu;
	thread->run = run;
	require(!pthread_create(&thread->id, NULL, run_thread, thread),
		"pthread_create()");
	usleep(20000);
}

/// join: errno.h pthread.h signal.h time.h

/* The exit of a vCPU that runs on a thread; -EINTR where none comes in time. */
static int join(struct thread *thread, int ms)
{
	struct timespec until;

	stoppable(thread->run);
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += ms % 1000 * 1000000L;
	if (until.tv_nsec >= 1000000000L) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000L;
	}
	if (pthread_timedjoin_np(thread->id, NULL, &until)) {
		pthread_kill(thread->id, SIGALRM);
		pthread_join(thread->id, NULL);
	}
	thread->run->immediate_exit = 0;
	return thread->exit;
}

/// emulation

/* True if the exit is for an instruction that KVM cannot emulate. */
static int emulation(struct kvm_run *run, int exit)
{
	return exit == KVM_EXIT_INTERNAL_ERROR &&
	       run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION;
}

/// irqfd: sys/eventfd.h unistd.h

/* Signal an eventfd that raises a GSI. */
static void irqfd(int vm, int gsi)
{
	struct kvm_irqfd irqfd = { .fd = eventfd(0, 0), .gsi = gsi };
	__u64 one = 1;

	kvm_ioctl(vm, KVM_IRQFD, &irqfd);
	require(write(irqfd.fd, &one, sizeof(one)) == sizeof(one),
		"write() to an eventfd");
	irqfd.flags = KVM_IRQFD_FLAG_DEASSIGN;
	kvm_ioctl(vm, KVM_IRQFD, &irqfd);
	close(irqfd.fd);
}
