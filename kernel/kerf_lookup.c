// SPDX-License-Identifier: GPL-2.0-only
/* Finds the unexported symbols that kerf needs, and names the one that is missing. */
#define pr_fmt(fmt) "kerf: " fmt

#include "kerf.h"
#include "kerf_lookup.h"

#define KERF_DEFINE(name) DEFINE_STATIC_CALL_NULL(kerf_##name, name);
KERF_FUNCTIONS(KERF_DEFINE)
#undef KERF_DEFINE

#define KERF_DEFINE(type, name) type *kerf_##name;
KERF_DATA(KERF_DEFINE)
#undef KERF_DEFINE

unsigned int kerf_exit_list_offset;

/*
 * Functions that run on a stopped CPU, between two writes, or that lead there: the direct callees of the engine, as the
 * disassembled image shows them. The kprobe blacklist (noinstr, entry, kprobes) comes on top.
 */
static const char * const engine[] = {
	/* the stop */
	"stop_machine_cpuslocked", "stop_machine", "stop_cpus", "__stop_cpus", "multi_cpu_stop", "stop_machine_yield",
	"cpu_stopper_thread", "cpu_stop_signal_done", "smpboot_thread_fn", "kthread", "ret_from_fork", "idle_task",
	"rcu_momentary_eqs", "rcu_preempt_deferred_qs", "rcu_preempt_deferred_qs_irqrestore", "__rcu_read_unlock",
	"rcu_read_unlock_special", "touch_nmi_watchdog", "arch_touch_nmi_watchdog", "touch_softlockup_watchdog",
	"ktime_get_mono_fast_ns", "delta_to_ns_safe", "_find_first_bit", "_find_next_bit",
	/* the write */
	"text_poke", "__text_poke", "text_poke_memcpy", "memcpy", "memcpy_orig", "memcmp", "__memcpy", "__memcmp",
	"get_locked_pte", "__get_locked_pte", "walk_to_pmd", "__pte_offset_map_lock", "__pte_alloc", "p4d_offset",
	"_raw_spin_lock", "_raw_spin_unlock", "native_set_pte", "switch_mm_irqs_off", "switch_mm", "leave_mm", "switch_ldt",
	"use_temporary_mm", "unuse_temporary_mm", "load_new_mm_cr3", "choose_new_asid", "invalidate_user_asid",
	"cr4_update_pce", "cr4_update_irqsoff", "perf_clear_dirty_counters", "hw_breakpoint_disable",
	"hw_breakpoint_restore", "flush_tlb_mm_range", "flush_tlb_func", "flush_tlb_one_user",
	"native_flush_tlb_one_user", "native_flush_tlb_multi", "get_flush_tlb_info", "put_flush_tlb_info",
	"__mmu_notifier_arch_invalidate_secondary_tlbs", "vmalloc_to_page", "core_kernel_text", "in_gate_area_no_mm",
	/* the unwinder */
	"unwind_next_frame", "__unwind_start", "unwind_get_return_address", "orc_find", "__orc_find", "stack_access_ok",
	"get_stack_info", "get_stack_info_noinstr", "in_task_stack", "in_irq_stack", "in_entry_stack", "__module_address",
	"mod_find", "__kernel_text_address", "kernel_text_address", "is_module_text_address", "is_ftrace_trampoline",
	"ftrace_ops_trampoline", "ftrace_graph_ret_addr", "rethook_find_ret_addr", "is_bpf_text_address",
	"__is_insn_slot_addr", "rcu_is_watching", "ct_nmi_enter", "ct_nmi_exit",
	/* what is not stopped */
	"exc_nmi", "default_do_nmi", "nmi_handle", "do_machine_check", "perf_event_nmi_handler", "local_touch_nmi",
	"nmi_cpu_backtrace_handler", "ghes_notify_nmi",
};

static int missing(const char *name)
{
	pr_err("this kernel has no symbol %s, which changing text safely needs; not loading\n", name);
	return -ENOENT;
}

/* A disabled probe is never armed: it is registered only to learn where the lookup function is. */
static unsigned long find_lookup_function(void)
{
	struct kprobe probe = { .symbol_name = "kallsyms_lookup_name", .flags = KPROBE_FLAG_DISABLED };
	unsigned long addr;

	if (register_kprobe(&probe))
		return 0;
	addr = (unsigned long)probe.addr;
	unregister_kprobe(&probe);
	return addr;
}

static int find_exit_list(void)
{
	const struct btf_member *member;
	const struct btf_type *type;
	struct btf *btf = kcall(bpf_get_btf_vmlinux);
	s32 id;
	u32 i;

	if (IS_ERR_OR_NULL(btf)) {
		pr_err("this kernel has no BTF (CONFIG_DEBUG_INFO_BTF); not loading\n");
		return -ENOENT;
	}
	id = kcall(btf_find_by_name_kind, btf, "rcu_tasks_percpu", BTF_KIND_STRUCT);
	if (id < 0)
		return missing("struct rcu_tasks_percpu");
	type = btf_type_by_id(btf, id);
	for_each_member(i, type, member) {
		const char *name = kcall(btf_name_by_offset, btf, member->name_off);

		if (name && !strcmp(name, "rtp_exit_list")) {
			kerf_exit_list_offset = __btf_member_bit_offset(type, member) / 8;
			return 0;
		}
	}
	return missing("rcu_tasks_percpu.rtp_exit_list");
}

/* The compiler's parts of a function (.cold, .part.0, .constprop.0) count as the function. */
const char *kerf_lookup_engine(unsigned long addr)
{
	char name[KSYM_SYMBOL_LEN];
	unsigned int i;

	if (!kcall(core_kernel_text, addr))
		return NULL;
	sprint_symbol_no_offset(name, addr);
	name[strcspn(name, ".")] = 0;
	for (i = 0; i < ARRAY_SIZE(engine); i++)
		if (!strcmp(name, engine[i]))
			return engine[i];
	return NULL;
}

int kerf_lookup_init(void)
{
	unsigned long addr = find_lookup_function();

	if (!addr)
		return missing("kallsyms_lookup_name");
	static_call_update(kerf_kallsyms_lookup_name, (void *)addr);

#define KERF_FIND(name)						\
	addr = kcall(kallsyms_lookup_name, #name);			\
	if (!addr)							\
		return missing(#name);					\
	static_call_update(kerf_##name, (void *)addr);
	KERF_FUNCTIONS(KERF_FIND)
#undef KERF_FIND

#define KERF_FIND(type, name)					\
	addr = kcall(kallsyms_lookup_name, #name);			\
	if (!addr)							\
		return missing(#name);					\
	kerf_##name = (type *)addr;
	KERF_DATA(KERF_FIND)
#undef KERF_FIND

	return find_exit_list();
}
