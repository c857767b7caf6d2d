// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module that `cargo xtask bench trigger` measures in: operations that pass a constant or not, a function by which a BPF
 * program writes a register, and two places where BPF programs can be asked. It gives BPF programs a way to write to a struct
 * pt_regs and is for virtual machines only.
 */
#include <linux/bpf.h>
#include <linux/bpf_verifier.h>
#include <linux/btf.h>
#include <linux/btf_ids.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/ptrace.h>
#include <linux/uaccess.h>

/* Two equal functions with a constant: one for probes and detours, one that is left alone. */
#define CONSTANT(name)								\
long name(long x);								\
noinline __attribute__((noipa)) long name(long x)				\
{										\
	long constant;								\
										\
	asm volatile("movl $32, %k0" : "=a" (constant));			\
	return x + constant;							\
}

CONSTANT(kerf_bench_point)
CONSTANT(kerf_bench_plain)

/* What a BPF program answers through a struct_ops. */
struct kerf_bench_ops {
	int (*ask)(unsigned long regs);
};

static struct kerf_bench_ops *ops;

__bpf_kfunc_start_defs();

/* The papers' way: the program writes the register itself. */
__bpf_kfunc void kerf_bench_write(struct pt_regs *ctx, u64 value)
{
	ctx->ax = value;
}

/* A program may return something else in its place (fmod_ret). */
__bpf_kfunc noinline int kerf_bench_ask(unsigned long regs)
{
	barrier();
	return 0;
}

__bpf_kfunc_end_defs();

BTF_KFUNCS_START(written)
BTF_ID_FLAGS(func, kerf_bench_write)
BTF_KFUNCS_END(written)

BTF_KFUNCS_START(asked)
BTF_ID_FLAGS(func, kerf_bench_ask)
BTF_KFUNCS_END(asked)

BTF_ID_LIST(structs)
BTF_ID(struct, kerf_bench_ops)
BTF_ID(struct, bpf_struct_ops_kerf_bench_ops)

static const struct btf_kfunc_id_set write_set = { .owner = THIS_MODULE, .set = &written };
static const struct btf_kfunc_id_set ask_set = { .owner = THIS_MODULE, .set = &asked };

/* The numbers of functions and structs in this module's BTF, for the loader. */
static int btf_ids[4];
static int n_ids = 4;
module_param_array_named(btf_ids, btf_ids, int, &n_ids, 0444);

/* One write: so many operations, each of so much work; every so many passes the constant, in one of these ways. */
struct order {
	u32 operations, work, every, way;
};

enum { PLAIN, POINT, ASK, OPS };

static noinline void work(u32 rounds)
{
	asm volatile("1: subl $1, %0\n\tjnz 1b" : "+r" (rounds) : : "cc");
}

static noinline long operate(const struct order *order)
{
	u32 left = order->every;
	long sum = 0;
	u32 n;

	for (n = 0; n < order->operations; n++) {
		if (order->work)
			work(order->work / 2);
		if (--left) {
			sum += kerf_bench_plain(n);
			continue;
		}
		left = order->every;
		if (order->way == POINT)
			sum += kerf_bench_point(n);
		else if (order->way == ASK)
			sum += kerf_bench_ask(n);
		else if (order->way == OPS)
			sum += ops->ask(n);
		else
			sum += kerf_bench_plain(n);
	}
	return sum;
}

/* Without interrupts, so that nothing but the operations is counted. */
static ssize_t bench_write(struct file *file, const char __user *from, size_t size, loff_t *at)
{
	struct order order;
	unsigned long flags;

	if (size != sizeof(order) || copy_from_user(&order, from, size))
		return -EINVAL;
	if (!order.every || order.way > OPS || (order.way == OPS && !ops))
		return -EINVAL;
	local_irq_save(flags);
	operate(&order);
	local_irq_restore(flags);
	return size;
}

static const struct file_operations files = { .owner = THIS_MODULE, .write = bench_write };
static struct miscdevice device = { .minor = MISC_DYNAMIC_MINOR, .name = "kerf_bench", .fops = &files, .mode = 0600 };

static int stub_ask(unsigned long regs)
{
	return 0;
}

static struct kerf_bench_ops stubs = { .ask = stub_ask };

static bool bench_access(int off, int size, enum bpf_access_type type, const struct bpf_prog *prog,
			 struct bpf_insn_access_aux *info)
{
	return bpf_tracing_btf_ctx_access(off, size, type, prog, info);
}

static const struct bpf_verifier_ops verifier_ops = { .is_valid_access = bench_access };

static int bench_init_ops(struct btf *btf)
{
	return 0;
}

static int bench_init_member(const struct btf_type *type, const struct btf_member *member, void *to, const void *from)
{
	return 0;
}

static int bench_reg(void *given, struct bpf_link *link)
{
	WRITE_ONCE(ops, given);
	return 0;
}

static void bench_unreg(void *given, struct bpf_link *link)
{
	WRITE_ONCE(ops, NULL);
}

static struct bpf_struct_ops bpf_kerf_bench_ops = {
	.verifier_ops = &verifier_ops,
	.init = bench_init_ops,
	.init_member = bench_init_member,
	.reg = bench_reg,
	.unreg = bench_unreg,
	.cfi_stubs = &stubs,
	.name = "kerf_bench_ops",
	.owner = THIS_MODULE,
};

static int __init bench_init(void)
{
	int err;

	btf_ids[0] = written.pairs[0].id;
	btf_ids[1] = asked.pairs[0].id;
	btf_ids[2] = structs[0];
	btf_ids[3] = structs[1];
	err = register_btf_kfunc_id_set(BPF_PROG_TYPE_KPROBE, &write_set) ?:
	      register_btf_fmodret_id_set(&ask_set) ?:
	      register_bpf_struct_ops(&bpf_kerf_bench_ops, kerf_bench_ops);
	return err ?: misc_register(&device);
}

static void __exit bench_exit(void)
{
	misc_deregister(&device);
}

module_init(bench_init);
module_exit(bench_exit);
MODULE_DESCRIPTION("measures what asking a policy costs");
MODULE_LICENSE("GPL");
