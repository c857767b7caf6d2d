/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Kernel symbols that are not exported, found at load. Functions are called through static calls, that is by
 * direct branches: many of them have a sealed ENDBR, at which an indirect call faults on CPUs with IBT.
 */
#ifndef KERF_LOOKUP_H
#define KERF_LOOKUP_H

#include <linux/btf.h>
#include <linux/bug.h>
#include <linux/ftrace.h>
#include <linux/jump_label.h>
#include <linux/kallsyms.h>
#include <linux/kprobes.h>
#include <linux/livepatch.h>
#include <linux/memory.h>
#include <linux/module.h>
#include <linux/perf_event.h>
#include <linux/sched.h>
#include <linux/static_call.h>
#include <linux/stop_machine.h>
#include <asm/alternative.h>
#include <linux/extable.h>
#include <asm/insn.h>
#include <asm/text-patching.h>

/* Private to arch/x86/kernel/kprobes: the bytes at @addr as they are without probes, perhaps copied to @buf (16 bytes). */
unsigned long recover_probed_instruction(kprobe_opcode_t *buf, unsigned long addr);

/* X(name): the functions that kerf calls; the module does not load when one is missing. */
#define KERF_FUNCTIONS(X)				\
	X(kallsyms_lookup_name)				\
	X(kallsyms_lookup_size_offset)			\
	X(text_poke)					\
	X(perf_event_text_poke)				\
	X(stop_machine_cpuslocked)			\
	X(insn_decode)					\
	X(find_module)					\
	X(core_kernel_text)				\
	X(idle_task)					\
	X(get_kprobe)					\
	X(within_kprobe_blacklist)			\
	X(recover_probed_instruction)			\
	X(jump_label_lock)				\
	X(jump_label_unlock)				\
	X(jump_label_text_reserved)			\
	X(static_call_text_reserved)			\
	X(alternatives_text_reserved)			\
	X(ftrace_location_range)			\
	X(find_bug)					\
	X(search_exception_tables)			\
	X(bpf_get_btf_vmlinux)				\
	X(btf_find_by_name_kind)			\
	X(btf_name_by_offset)

#define KERF_DECLARE(name) DECLARE_STATIC_CALL(kerf_##name, name);
KERF_FUNCTIONS(KERF_DECLARE)
#undef KERF_DECLARE

/* Calls the kernel's @name. */
#define kcall(name, ...) static_call(kerf_##name)(__VA_ARGS__)

/* X(type, name): data; as above. */
#define KERF_DATA(X)					\
	X(struct mutex, text_mutex)			\
	X(struct mutex, kprobe_mutex)			\
	X(char, _text)					\
	X(char, _etext)					\
	X(char, __start_notes)				\
	X(char, __stop_notes)				\
	X(struct exception_table_entry, __start___ex_table)	\
	X(struct exception_table_entry, __stop___ex_table)	\
	X(char, rcu_tasks__percpu)			\
	X(int __percpu, bpf_prog_active)		\
	X(struct mutex, klp_mutex)			\
	X(struct list_head, klp_patches)

#define KERF_DECLARE(type, name) extern type *kerf_##name;
KERF_DATA(KERF_DECLARE)
#undef KERF_DECLARE

/* Offset of the list of exiting tasks in Tasks RCU's per-CPU data. */
extern unsigned int kerf_exit_list_offset;

int kerf_lookup_init(void);
/* Is @addr in a function that the engine executes while it writes? Gives its name. */
const char *kerf_lookup_engine(unsigned long addr);

#endif
