// SPDX-License-Identifier: GPL-2.0-only
/*
 * Notes which blocks of the modules that are built with -fsanitize-coverage=trace-pc have been executed.
 *
 * /proc/kvmcov says it for each 64 bytes of code at which that is not as at the read before, and begins anew. One pass ends with
 * a read of nothing. Reading costs as much as has ever been executed, not as much as could be.
 */
#include <linux/bitmap.h>
#include <linux/module.h>
#include <linux/proc_fs.h>
#include <linux/uaccess.h>

/* Modules are placed from MODULES_VADDR on, after a random offset of at most 4 MiB. */
#define SPAN	(32UL << 20)
#define WORDS	(SPAN / BITS_PER_LONG)

struct kvmcov_word {
	u64 address;	/* of 64 bytes of code */
	u64 bits;	/* those that a call of the recorder returned to */
};

static unsigned long hits[WORDS], sent[WORDS];
/* Which words of hits have ever been other than 0. */
static DECLARE_BITMAP(touched, WORDS);

void __sanitizer_cov_trace_pc(void);

static __always_inline void mark(unsigned long *map, unsigned long bit)
{
	asm volatile("lock; orq %1, %0"
		     : "+m"(map[bit / BITS_PER_LONG])
		     : "r"(1UL << bit % BITS_PER_LONG)
		     : "cc", "memory");
}

/* Called everywhere, also where interrupts, RCU and per-CPU data cannot be used: it uses none of them, and calls nothing. */
noinline notrace void __sanitizer_cov_trace_pc(void)
{
	unsigned long at = (unsigned long)__builtin_return_address(0) - MODULES_VADDR;

	if (at >= SPAN || READ_ONCE(hits[at / BITS_PER_LONG]) & 1UL << at % BITS_PER_LONG)
		return;
	mark(hits, at);
	mark(touched, at / BITS_PER_LONG);
}
EXPORT_SYMBOL(__sanitizer_cov_trace_pc);

static ssize_t kvmcov_read(struct file *file, char __user *to, size_t size, loff_t *pos)
{
	unsigned long word = *pos;
	size_t done = 0;

	if (size < sizeof(struct kvmcov_word))
		return -EINVAL;
	for (; (word = find_next_bit(touched, WORDS, word)) < WORDS; word++) {
		struct kvmcov_word new = { .address = MODULES_VADDR + word * BITS_PER_LONG };

		if (size - done < sizeof(new))
			break;
		new.bits = xchg(&hits[word], 0);
		if (new.bits == sent[word])
			continue;
		sent[word] = new.bits;
		if (copy_to_user(to + done, &new, sizeof(new)))
			return -EFAULT;
		done += sizeof(new);
	}
	*pos = done ? word : 0;
	return done;
}

static const struct proc_ops kvmcov_ops = {
	.proc_read = kvmcov_read,
};

static int __init kvmcov_init(void)
{
	return proc_create("kvmcov", 0400, NULL, &kvmcov_ops) ? 0 : -ENOMEM;
}
module_init(kvmcov_init);

static void __exit kvmcov_exit(void)
{
	remove_proc_entry("kvmcov", NULL);
}
module_exit(kvmcov_exit);

MODULE_DESCRIPTION("Which blocks of KVM's modules have been executed");
MODULE_LICENSE("GPL");
