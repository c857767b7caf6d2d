// SPDX-License-Identifier: GPL-2.0-only
/* Who else owns the bytes of a window: probes, tracers, patched sites, livepatches, forbidden code. Refusals name them. */
#include "kerf.h"
#include "kerf_lookup.h"

/* How far in front of a window a probe's jump optimisation may have copied instructions: 5 bytes and the rest of the last. */
#define PROBE_REACH 19

/* The kprobe that owns bytes of the window. Caller holds kprobe_mutex. */
const char *kerf_probe_owner(const struct kerf_location *loc, char *buf, size_t len)
{
	unsigned long addr;
	struct kprobe *probe;

	for (addr = loc->addr - PROBE_REACH; addr < loc->addr + loc->len; addr++) {
		preempt_disable();
		probe = kcall(get_kprobe, (void *)addr);
		preempt_enable();
		if (!probe || kerf_points_own(probe) || (addr < loc->addr && kprobe_ftrace(probe)))
			continue;
		snprintf(buf, len, "kprobe at %pS", (void *)addr);
		return buf;
	}
	return NULL;
}

/* The name of the livepatch module that has replaced the function at @addr, or NULL. */
const char *kerf_livepatch_owner(unsigned long addr)
{
	struct klp_patch *patch;
	struct klp_object *obj;
	struct klp_func *func;
	const char *name = NULL;

	mutex_lock(kerf_klp_mutex);
	list_for_each_entry(patch, kerf_klp_patches, list) {
		list_for_each_entry(obj, &patch->obj_list, node) {
			list_for_each_entry(func, &obj->func_list, node) {
				unsigned long start = (unsigned long)func->old_func;

				if (func->patched && !func->nop && addr >= start && addr < start + func->old_size)
					name = patch->mod->name;
			}
		}
	}
	mutex_unlock(kerf_klp_mutex);
	return name;
}

/* Code that no sender may change: what runs on stopped CPUs. */
static const char *forbidden(unsigned long addr)
{
	if (kcall(within_kprobe_blacklist, addr))
		return "noinstr, entry or kprobes code";
	return kerf_lookup_engine(addr);
}

static const char *patched_site(const struct kerf_location *loc)
{
	void *first = (void *)loc->addr, *last = (void *)loc->addr + loc->len - 1;

	if (kcall(ftrace_location_range, (unsigned long)first, (unsigned long)last))
		return "an ftrace site";
	if (kcall(jump_label_text_reserved, first, last))
		return "a static key";
	if (kcall(static_call_text_reserved, first, last))
		return "a static call";
	if (kcall(alternatives_text_reserved, first, last))
		return "a lock prefix that the kernel patches";
	return NULL;
}

/*
 * -EADDRINUSE or -EACCES with the owner's name, or 0. Caller holds kprobe_mutex, jump_label_lock and text_mutex. @restore: the
 * window is ours and goes back to stock; only a probe can have come since.
 */
int kerf_owner_check(const struct kerf_location *loc, bool restore, struct kerf_report *report)
{
	const char *id = loc->entry->id, *who;
	char buf[KSYM_SYMBOL_LEN];

	who = kerf_probe_owner(loc, buf, sizeof(buf));
	if (who)
		return kerf_refuse(report, -EADDRINUSE, "%s: the code at %pS is owned by %s", id, (void *)loc->addr, who);
	if (restore)
		return 0;
	who = forbidden(loc->addr) ?: forbidden(loc->addr + loc->len - 1);
	if (who)
		return kerf_refuse(report, -EACCES, "%s: %pS runs while text is changed (%s)", id, (void *)loc->addr, who);
	if (!loc->mod && !kcall(core_kernel_text, loc->addr))
		return kerf_refuse(report, -EACCES, "%s: %pS is not kernel text that stays", id, (void *)loc->addr);
	who = patched_site(loc);
	if (who)
		return kerf_refuse(report, -EADDRINUSE, "%s: the code at %pS is owned by %s", id, (void *)loc->addr, who);
	return 0;
}
