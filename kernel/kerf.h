/* SPDX-License-Identifier: GPL-2.0-only */
/* What the parts of kerf.ko share: limits, the record's meaning in memory, and each part's entry points. */
#ifndef KERF_H
#define KERF_H

#include <linux/list.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/types.h>

struct file;
struct kprobe;
struct task_struct;
struct pt_regs;
struct seq_file;

#define KERF_PROTOCOL		7
#define KERF_RECORD_MAX		(1U << 20)
#define KERF_ID_MAX		160
#define KERF_LOCATIONS_MAX	256
#define KERF_LOCATIONS_ALL	4096
#define KERF_BETWEEN_MAX	1024
#define KERF_TARGETS_MAX	32
#define KERF_OPERATIONS_MAX	256
#define KERF_TIMEOUT_MAX_MS	60000
#define KERF_PAUSE_MAX_MS	86400000
#define KERF_WINDOW_MAX		32
#define KERF_INSNS_MAX		12
#define KERF_CODE_MAX		32	/* bytes in the place of one instruction */
#define KERF_CHANGED_MAX	8	/* instructions of a detour that differ */
#define KERF_DETOUR_MAX		123	/* bytes of a detour as sent */
#define KERF_OWNER_MAX		64
#define KERF_SHARE_MAX		1000000	/* thousandths of one CPU's time: a thousand CPUs */
#define KERF_NOTE_MAX		200	/* why something was set */
#define KERF_HOLD_MAX		64	/* files */
#define KERF_DOMAIN_MAX		256	/* intervals */
#define KERF_FORMS_MAX		8
#define KERF_MARKS_MAX		8
#define KERF_ARGUMENTS		6
#define KERF_SPANS_MAX		64	/* safe spans of an entry */
#define KERF_EXITS_MAX		64	/* of a safe span */
#define KERF_INSIDE_MAX		8192	/* threads inside safe spans when a transition begins */
#define KERF_CELL_SCRATCH	(KERF_MARKS_MAX * 8)
#define KERF_CELLS_SIZE		(KERF_CELL_SCRATCH + 8)
#define KERF_BUILD_ID_MAX	20
#define KERF_SLOT_SIZE		256
#define KERF_SLOTS		512
#define KERF_JMP_SIZE		5

enum kerf_kind { KERF_IMMEDIATE = 1, KERF_DETOUR = 2, KERF_DECIDED = 3 };

/* When a value changes for whom. docs/transitions.md */
enum kerf_mode {
	KERF_AT_ONCE,			/* for all, wherever they are but inside what is written */
	KERF_BY_TASK,			/* for each task, when it is outside the safe spans */
	KERF_GLOBALLY,			/* for all, when all are outside */
};

/* The answer to the last write on an open file. */
struct kerf_report {
	int code;
	unsigned int attempts;		/* times the CPUs were stopped */
	unsigned int tasks;		/* stacks looked at in the last stop */
	u64 stop_ns;			/* length of the last stop, as its worker saw it */
	unsigned int inside;		/* threads in a safe span when the transition began */
	unsigned int looks;		/* times that the stacks of those left were looked at again */
	u64 total_ns;			/* the whole transaction */
	char text[384];			/* what was wrong, where, why */
};

/* Code that locations lie in: the core kernel (no name) or a module. */
struct kerf_target {
	char name[MODULE_NAME_LEN];
	u8 build_id[KERF_BUILD_ID_MAX];
	u8 build_id_len;
	struct module *mod;		/* held while a transaction runs */
	unsigned long base, end;	/* of its text that stays */
};

struct kerf_between {
	u16 target;
	struct module *mod;
	bool gone;
	unsigned long start, end;
};

/* A number of a detour that a policy decides. Its cell has the same index. */
struct kerf_mark {
	u8 insn, part;			/* stock instruction, and which of those that stand for it */
	u8 form, bits;
	u8 below;			/* the number is less than this, if it is not 0 */
	bool nonzero, met;
	u8 shift;			/* bits that do not count */
	s64 a, b;			/* of its form, see kerf_location.plain */
	s64 stock;
};

/* What a decided location is in an execution of its safe span. */
enum kerf_role {
	KERF_ALONE,			/* the only one: each pass is an execution of its own */
	KERF_BEGINS,			/* every execution passes it before any other */
	KERF_GOES_ON,			/* uses what was decided where the execution began */
};

/* Where an argument of the function is at the window's start. */
struct kerf_argument {
	u8 kind;			/* 0: nowhere, 1: register, 2: stack */
	u8 reg;				/* hardware number */
	s32 offset;			/* from the stack pointer */
};

struct kerf_decider;

struct kerf_location {
	struct kerf_entry *entry;
	struct module *mod;		/* NULL: core kernel; never followed, only compared */
	char target[MODULE_NAME_LEN];
	bool gone;			/* its module went away */
	u8 kind, len, field, field_len;	/* field within the window, in bytes */
	u8 insns;			/* instructions in @code */
	u8 code_len[KERF_INSNS_MAX];
	u8 code[KERF_DETOUR_MAX];	/* replacement as sent, without the jump back */
	u8 n_marks, n_arguments, n_lifted;
	bool plain;			/* every number is a * V + b, for all permitted values */
	struct kerf_decider *asks;	/* whom a trigger may ask at once, or NULL */
	struct kerf_mark marks[KERF_MARKS_MAX];
	struct kerf_argument arguments[KERF_ARGUMENTS];
	u8 role;			/* enum kerf_role */
	s32 frame;			/* how far above the stack pointer the execution's frame ends; -1: the stack tells */
	u8 image[KERF_SLOT_SIZE];	/* what the slot holds */
	u8 lifted[KERF_INSNS_MAX + 1];	/* where in it the stack pointer is back although the window is not left */
	u64 offset;			/* from the target's text base */
	unsigned long addr;
	u8 stock[KERF_WINDOW_MAX];
	u8 set[KERF_WINDOW_MAX];	/* the window with this location's change alone */
	int slot;			/* in the pool, or -1 */
	bool in_text;			/* its bytes are what memory holds */
};

struct kerf_range {
	unsigned long start, end;	/* start <= p < end is inside */
};

/*
 * Where the effects of a constant's value live: code of one function, and all that it calls. A thread is inside while an
 * instruction pointer or return address of its stack is in one of the ranges.
 */
struct kerf_safe_span {
	u16 target;
	struct module *mod;
	unsigned int n_ranges, n_exits;
	unsigned long entry;		/* the only way in */
	struct kerf_range *ranges;
	unsigned long *exits;		/* where it is left */
};

/* What an operator permits while a constant is set. kerf_guard.c */
struct kerf_guard {
	bool given;
	s64 stock, min, max;
	u64 step;			/* how far one change may go; 0: any way */
	u32 pause_ms;			/* how soon the next one may come */
};

/* What a policy may cost, all its constants together. Nothing: as much as it likes. kerf_watchdog.c */
struct kerf_limits {
	u64 triggers;			/* in a second */
	u32 share;			/* of one CPU's time, in thousandths */
};

/* Where a policy's counts stood at the watchdog's last look. */
struct kerf_seen {
	u64 hits, ns, when;
};

struct kerf_entry {
	struct list_head node;
	char id[KERF_ID_MAX + 1];
	s64 value;
	char owner[KERF_OWNER_MAX + 1];	/* the policy file that it belongs to, or empty */
	struct kerf_decider *decider;	/* NULL: the value is fixed */
	bool leaving;			/* replaced or unset by the running transaction */
	unsigned int n_locations, n_between, n_gates, n_spans;
	struct kerf_location *locations;
	struct kerf_location *gates;	/* in the text while old and new value are both in use */
	struct kerf_between *between;
	struct kerf_safe_span *spans;
	struct kerf_entry *old;		/* what it replaces, while a transition runs; NULL: the stock value */
	struct kerf_guard guard;
	struct kerf_limits limits;
	struct kerf_seen seen;
	u64 since, since_boot;		/* when it came into force: of the wall clock, and since the boot, in ns */
	pid_t pid;			/* of who set it */
	uid_t login;			/* and as whom that one had logged in */
	char note[KERF_NOTE_MAX + 1];
};

/* A window that a transaction writes. */
struct kerf_write {
	struct kerf_location *loc;
	bool restore;			/* back to stock, else to loc->set */
	u8 before[KERF_WINDOW_MAX];	/* what memory must hold */
};

/* Files that stay open while a policy is loaded: the links of the BPF programs beside it. */
struct kerf_hold {
	struct list_head node;
	char owner[KERF_OWNER_MAX + 1];
	unsigned int n;
	struct file *files[];
};

struct kerf_txn {
	bool dry_run, unset_all, replace;
	bool outside;			/* nobody may be in a safe span of what is dropped */
	char owner[KERF_OWNER_MAX + 1];	/* of what is set */
	char note[KERF_NOTE_MAX + 1];	/* why, for who reads the state */
	char drop[KERF_OWNER_MAX + 1];	/* all that belongs to this one is unset */
	struct kerf_hold *hold;
	struct kerf_limits limits;	/* of the policy that is set */
	enum kerf_mode mode;
	u32 timeout_ms;
	unsigned int n_targets, n_sets, n_unsets, n_locations;
	struct kerf_target targets[KERF_TARGETS_MAX];
	struct list_head sets;		/* kerf_entry, new */
	char (*unsets)[KERF_ID_MAX + 1];
	struct kerf_report *report;
	/* The plan, made once the targets are found. */
	struct kerf_write *writes;
	unsigned int n_writes, n_restores;	/* restores come first */
	struct kerf_range *ranges;	/* sorted, apart */
	unsigned int n_ranges;
	bool check_stacks;
	bool gated;			/* every constant has gates, which keep threads inside apart from others */
	bool collect;			/* the stop notes who is inside a safe span */
};

/* kerf_main.c */
extern struct mutex kerf_mutex;		/* one transaction, or one reader of the state, at a time */

/* kerf_record.c */
int kerf_record_parse(const u8 *record, size_t len, struct kerf_txn *txn);
void kerf_txn_free(struct kerf_txn *txn);
void kerf_entry_free(struct kerf_entry *entry);

/* kerf_policy.c */
void kerf_decider_free(struct kerf_decider *decider);
int kerf_decider_check_marks(struct kerf_location *loc, struct kerf_report *report);
asmlinkage void kerf_trigger(struct pt_regs *regs);

/* kerf_counts.c */
void kerf_decider_show(struct seq_file *m, const struct kerf_entry *entry);

/* kerf_watchdog.c */
void kerf_watchdog_changed(const struct kerf_txn *txn);
void kerf_watchdog_exit(void);
const char *kerf_watchdog_reason(const char *owner);
void kerf_watchdog_show(struct seq_file *m, const struct kerf_entry *entry);
void kerf_watchdog_show_removed(struct seq_file *m);

/* kerf_execution.c */
struct kerf_executions;
struct kerf_kept_stack;
struct kerf_executions *kerf_executions_alloc(void);
void kerf_executions_free(struct kerf_executions *all);
bool kerf_execution_begin(struct kerf_executions *all, unsigned long frame, bool decided, s64 value);
bool kerf_execution_find(struct kerf_executions *all, unsigned long frame, bool *decided, s64 *value);
void kerf_execution_live(struct kerf_kept_stack *own, unsigned long frame);
void kerf_execution_visit(struct task_struct *task, struct kerf_executions *all);

/* kerf_guard.c */
int kerf_guard_check(struct kerf_txn *txn);
void kerf_guard_begin(struct kerf_entry *entry, const struct kerf_txn *txn);
void kerf_guard_show(struct seq_file *m, const struct kerf_entry *entry);

/* kerf_enter.S */
void kerf_enter(void);

/* kerf_hold.c */
struct kerf_hold *kerf_hold_alloc(const char *owner, unsigned int n);
void kerf_hold_free(struct kerf_hold *hold);

/* kerf_emit.c */
int kerf_emit(struct kerf_location *loc, struct kerf_report *report);

/* kerf_text.c */
extern struct list_head kerf_entries;
extern struct list_head kerf_holds;
extern struct list_head *kerf_pending;	/* entries of the running transition, or NULL */
void kerf_txn_settled(struct kerf_txn *txn);
int kerf_attempts(struct kerf_txn *txn, unsigned long until);
int kerf_attempt(struct kerf_txn *txn, bool first);
int kerf_transact(struct kerf_txn *txn);
void kerf_expected_now(const struct kerf_location *loc, u8 *bytes);
bool kerf_owned(const struct kerf_location *loc, unsigned long *start, unsigned long *end);
void kerf_drop_module(struct module *mod);
void kerf_restore_all(void);

/* kerf_stop.c */
int kerf_stop_and_write(struct kerf_txn *txn);

/* kerf_transition.c */
int kerf_transition(struct kerf_txn *txn);
int kerf_transition_settle(struct kerf_report *report);
bool kerf_transition_stuck(const struct kerf_txn *txn);
bool kerf_transition_old(const struct kerf_location *loc, struct pt_regs *regs);
void kerf_transition_visit(struct task_struct *task, bool again);
int kerf_transition_collect(struct kerf_report *report);
void kerf_transition_left(struct pt_regs *regs);
void kerf_transition_entered(struct pt_regs *regs);

/* kerf_points.c */
int kerf_points_place(struct kerf_txn *txn);
void kerf_points_remove(void);
bool kerf_points_own(const struct kprobe *probe);

/* kerf_plan.c */
enum kerf_step {
	KERF_DIRECTLY,			/* from what is in force to what is wanted */
	KERF_TO_GATES,			/* from what is in force to gates */
	KERF_FROM_GATES,		/* from gates to what is wanted */
	KERF_BACK,			/* from gates to what was in force */
};
int kerf_plan_check(struct kerf_txn *txn);
void kerf_plan(struct kerf_txn *txn, enum kerf_step step, bool outside_spans);
void kerf_plan_clear(struct kerf_txn *txn);
struct kerf_location *kerf_gates(struct kerf_entry *entry, unsigned int *n);
void kerf_merge_ranges(struct kerf_range *ranges, unsigned int *n);

/* kerf_target.c */
int kerf_targets_find(struct kerf_txn *txn);
void kerf_targets_put(struct kerf_txn *txn);
const u8 *kerf_running_build_id(size_t *len);

/* kerf_owner.c */
int kerf_owner_check(const struct kerf_location *loc, bool restore, struct kerf_report *report);
const char *kerf_probe_owner(const struct kerf_location *loc, char *buf, size_t len);
const char *kerf_livepatch_owner(unsigned long addr);

/* kerf_verify.c */
int kerf_verify_location(struct kerf_location *loc, struct kerf_report *report);
int kerf_verify_surroundings(const struct kerf_location *loc, struct kerf_report *report);

/* kerf_form.c */
struct insn;
int kerf_form_pair(const struct insn *stock, const struct insn *new, const char **why);
int kerf_decode(struct insn *insn, const u8 *bytes, size_t len);
int kerf_sequence(const struct insn *stock, const u8 *code, size_t len, const char **why);
bool kerf_form_ordinary(const struct insn *insn);
bool kerf_form_branch(const struct insn *insn);
bool kerf_form_field(const struct insn *insn, unsigned int field, unsigned int len);
bool kerf_form_rip_relative(const struct insn *insn);

/* kerf_pool.c */
extern u8 kerf_pool[];
extern const struct kerf_location *kerf_pool_owners[KERF_SLOTS];
int kerf_pool_take(const struct kerf_location *loc);
void kerf_pool_release(int slot);
void kerf_pool_write(const struct kerf_location *loc);
const struct kerf_location *kerf_pool_location(int slot);
unsigned long kerf_pool_address(int slot);
int kerf_pool_slot_of(unsigned long addr);
bool kerf_pool_lowered(int slot, unsigned long addr);
unsigned int kerf_pool_used(void);

/* kerf_stack.c */
struct task_struct;
struct kerf_blocker {
	char comm[16];
	int pid;
	unsigned long ip;		/* 0: the stack could not be followed */
};
int kerf_stack_check_all(const struct kerf_txn *txn, unsigned int *tasks, struct kerf_blocker *who);
bool kerf_stack_inside(struct task_struct *task, struct pt_regs *regs, const struct kerf_range *ranges, unsigned int n,
		       unsigned long *cfa, unsigned long *ip);
unsigned long kerf_stack_frame(struct pt_regs *regs, const struct kerf_entry *entry, bool own);
bool kerf_stack_live(struct task_struct *task, struct kerf_kept_stack *own);
/* What is done with every task: its stack held against a transaction, against kept decisions, or given to the running transition. */
struct kerf_visit {
	const struct kerf_txn *txn;
	struct kerf_executions *executions;
	bool again;			/* the transition's: only tasks that it knows */
	unsigned int tasks;
	struct kerf_blocker *who;
	bool blocked;
};
void kerf_stack_each(struct kerf_visit *visit);
bool kerf_in_ranges(const struct kerf_range *ranges, unsigned int n, unsigned long ip);

#define kerf_refuse(report, err, fmt, ...) ({						\
	snprintf((report)->text, sizeof((report)->text), fmt, ##__VA_ARGS__);		\
	(err);										\
})

#endif
