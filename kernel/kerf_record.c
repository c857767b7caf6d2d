// SPDX-License-Identifier: GPL-2.0-only
/* The record that user space writes (docs/module-interface.md): bytes in, struct kerf_txn out, every length checked. */
#include <linux/ctype.h>
#include <linux/file.h>
#include <linux/slab.h>
#include <linux/unaligned.h>

#include "kerf_policy.h"

#define KERF_MAGIC "KERFTXN1"
enum { FLAG_DRY_RUN = 1, FLAG_UNSET_ALL = 2, FLAG_REPLACE = 4, FLAG_MODE_SHIFT = 8, FLAG_KNOWN = 0x307 };
enum { OP_SET = 1, OP_UNSET = 2, OP_POLICY = 3, OP_DROP = 4, OP_HOLD = 5, OP_GUARD = 6, OP_LIMITS = 7 };

struct reader {
	const u8 *data;
	size_t len, at;
	bool short_read;
	struct kerf_report *report;
};

static const u8 *take(struct reader *r, size_t n)
{
	const u8 *p = r->data + r->at;

	if (r->short_read || n > r->len - r->at) {
		r->short_read = true;
		return NULL;
	}
	r->at += n;
	return p;
}

/* Past the record's end these give 0 and leave short_read set, which the caller asks once per object. */
static u64 number(struct reader *r, size_t size)
{
	const u8 *p = take(r, size);
	u64 v = 0;

	while (p && size--)
		v = v << 8 | p[size];
	return v;
}

static void bytes(struct reader *r, void *to, size_t n)
{
	const u8 *p = take(r, n);

	if (p)
		memcpy(to, p, n);
}

static int bad(struct reader *r, const char *what)
{
	if (r->short_read)
		what = "it ends too early";
	return kerf_refuse(r->report, -EINVAL, "record at byte %zu: %s", r->at, what);
}

/* Printable ASCII: a name, or with @spaces a sentence. */
static int text(struct reader *r, char *to, size_t n, bool spaces)
{
	size_t i;

	bytes(r, to, n);
	to[n] = 0;
	for (i = 0; i < n; i++)
		if (r->short_read || !isascii(to[i]) || !(spaces ? isprint(to[i]) : isgraph(to[i])))
			return bad(r, spaces ? "a note must be printable ASCII" : "a name must be printable ASCII without spaces");
	return 0;
}

static int parse_target(struct reader *r, struct kerf_target *target)
{
	size_t name_len = number(r, 1), id_len = number(r, 1);
	int err;

	if (number(r, 2) || name_len >= MODULE_NAME_LEN || !id_len || id_len > KERF_BUILD_ID_MAX)
		return bad(r, "a target needs a module name of fewer than 56 bytes and a build id of 1 to 20");
	err = text(r, target->name, name_len, false);
	bytes(r, target->build_id, id_len);
	target->build_id_len = id_len;
	if (!err && r->short_read)
		err = bad(r, "");
	return err;
}

static int parse_detour(struct reader *r, struct kerf_location *loc, size_t count)
{
	size_t i, len, at = 0;

	if (!count || count > KERF_INSNS_MAX)
		return bad(r, "a detour has 1 to 12 instructions");
	if (loc->len < KERF_JMP_SIZE)
		return bad(r, "a detour's window has at least 5 bytes");
	for (i = 0; i < count; i++) {
		len = number(r, 1);
		if (!len || len > KERF_CODE_MAX || at + len > KERF_DETOUR_MAX)
			return bad(r, "an instruction becomes 1 to 32 bytes, a detour 123 at most");
		bytes(r, loc->code + at, len);
		loc->code_len[i] = len;
		at += len;
	}
	loc->insns = count;
	return r->short_read ? bad(r, "") : 0;
}

/* Which numbers of a detour the policy decides, and where the function's arguments are. */
static int parse_decided(struct reader *r, struct kerf_location *loc, size_t count)
{
	unsigned int n;
	int err = parse_detour(r, loc, count);

	if (err)
		return err;
	loc->n_marks = number(r, 1);
	loc->n_arguments = number(r, 1);
	loc->role = number(r, 1);
	if (number(r, 1) || loc->role > KERF_GOES_ON || loc->n_marks > KERF_MARKS_MAX || loc->n_arguments > KERF_ARGUMENTS ||
	    (!loc->n_marks && loc->role != KERF_BEGINS))
		return bad(r, "a decided detour has 1 to 8 numbers, or none where an execution begins, and up to 6 arguments");
	loc->frame = number(r, 4);
	if (loc->frame < -1 || loc->frame > (s32)THREAD_SIZE)
		return bad(r, "an execution's frame ends within the stack, or the stack tells (-1)");
	for (n = 0; n < loc->n_marks; n++) {
		struct kerf_mark *mark = &loc->marks[n];

		mark->insn = number(r, 1);
		mark->part = number(r, 1);
		mark->form = number(r, 1);
		mark->bits = number(r, 1);
		if (mark->bits < 1 || mark->bits > 64)
			return bad(r, "a number has 1 to 64 bits");
	}
	for (n = 0; n < loc->n_arguments; n++) {
		struct kerf_argument *argument = &loc->arguments[n];

		argument->kind = number(r, 1);
		argument->reg = number(r, 1);
		if (number(r, 2) || argument->kind > 2 || argument->reg > 15)
			return bad(r, "an argument is nowhere (0), in a register (1) or on the stack (2)");
		argument->offset = number(r, 4);
	}
	return r->short_read ? bad(r, "") : 0;
}

static int parse_location(struct reader *r, struct kerf_txn *txn, struct kerf_location *loc)
{
	size_t target = number(r, 2), a, b;

	loc->slot = -1;
	loc->kind = number(r, 1);
	loc->len = number(r, 1);
	a = number(r, 1);
	b = number(r, 1);
	if (number(r, 2) || target >= txn->n_targets || !loc->len || loc->len > KERF_WINDOW_MAX)
		return bad(r, "a location needs a target of the record and a window of 1 to 32 bytes");
	strscpy(loc->target, txn->targets[target].name, sizeof(loc->target));
	loc->offset = number(r, 8);
	/* Until the targets are found this is the target's number. */
	loc->addr = target;
	bytes(r, loc->stock, loc->len);
	memcpy(loc->set, loc->stock, loc->len);
	if (loc->kind == KERF_DETOUR)
		return a ? bad(r, "a detour has no field") : parse_detour(r, loc, b);
	if (loc->kind == KERF_DECIDED)
		return a || !loc->entry->decider ? bad(r, "only a policy's detours are decided, and they have no field") :
						   parse_decided(r, loc, b);
	if (loc->kind != KERF_IMMEDIATE)
		return bad(r, "a location is an immediate (1), a detour (2) or a decided detour (3)");
	if ((b != 1 && b != 2 && b != 4 && b != 8) || a + b > loc->len)
		return bad(r, "a field has 1, 2, 4 or 8 bytes within its window");
	loc->field = a;
	loc->field_len = b;
	bytes(r, loc->set + a, b);
	return r->short_read ? bad(r, "") : 0;
}

static int parse_between(struct reader *r, struct kerf_txn *txn, struct kerf_between *range)
{
	range->target = number(r, 2);
	if (number(r, 2) || number(r, 4) || range->target >= txn->n_targets)
		return bad(r, "a range needs a target of the record");
	range->start = number(r, 8);
	range->end = number(r, 8);
	if (range->start >= range->end)
		return bad(r, "a range must not be empty");
	return r->short_read ? bad(r, "") : 0;
}

static int parse_locations(struct reader *r, struct kerf_txn *txn, struct kerf_entry *entry,
			   struct kerf_location *locations, unsigned int n)
{
	unsigned int i;
	int err = 0;

	for (i = 0; i < n && !err; i++) {
		locations[i].entry = entry;
		err = parse_location(r, txn, &locations[i]);
	}
	return err;
}

static int parse_span(struct reader *r, struct kerf_txn *txn, struct kerf_safe_span *span)
{
	unsigned int n_ranges, n_exits, i;

	span->target = number(r, 2);
	n_ranges = number(r, 2);
	n_exits = number(r, 2);
	if (number(r, 2) || span->target >= txn->n_targets || !n_ranges || n_ranges > KERF_BETWEEN_MAX ||
	    n_exits > KERF_EXITS_MAX)
		return bad(r, "a safe span needs a target of the record, 1 to 1024 ranges and up to 64 exits");
	span->entry = number(r, 8);
	span->ranges = kvcalloc(n_ranges, sizeof(*span->ranges), GFP_KERNEL);
	span->exits = kvcalloc(max(n_exits, 1U), sizeof(*span->exits), GFP_KERNEL);
	if (!span->ranges || !span->exits)
		return -ENOMEM;
	for (i = 0; i < n_ranges; i++) {
		span->ranges[i].start = number(r, 8);
		span->ranges[i].end = number(r, 8);
		if (span->ranges[i].start >= span->ranges[i].end)
			return bad(r, "a range must not be empty");
	}
	for (i = 0; i < n_exits; i++)
		span->exits[i] = number(r, 8);
	span->n_ranges = n_ranges;
	span->n_exits = n_exits;
	return r->short_read ? bad(r, "") : 0;
}

static int parse_set(struct reader *r, struct kerf_txn *txn, struct kerf_entry *entry)
{
	unsigned int i;
	int err;

	entry->locations = kvcalloc(max(entry->n_locations, 1U), sizeof(*entry->locations), GFP_KERNEL);
	entry->gates = kvcalloc(max(entry->n_gates, 1U), sizeof(*entry->gates), GFP_KERNEL);
	entry->between = kvcalloc(max(entry->n_between, 1U), sizeof(*entry->between), GFP_KERNEL);
	entry->spans = kvcalloc(max(entry->n_spans, 1U), sizeof(*entry->spans), GFP_KERNEL);
	if (!entry->locations || !entry->gates || !entry->between || !entry->spans)
		return -ENOMEM;
	err = parse_locations(r, txn, entry, entry->locations, entry->n_locations) ?:
	      parse_locations(r, txn, entry, entry->gates, entry->n_gates);
	for (i = 0; i < entry->n_between && !err; i++)
		err = parse_between(r, txn, &entry->between[i]);
	for (i = 0; i < entry->n_spans && !err; i++)
		err = parse_span(r, txn, &entry->spans[i]);
	return err;
}

/*
 * What the numbers of gates and policies follow from: the program that decides if there is one, what it may decide on, and
 * the forms.
 */
static int parse_decider(struct reader *r, struct kerf_entry *entry, bool policy)
{
	int fd = number(r, 4), err;
	unsigned int n_ranges = number(r, 2), n_forms = number(r, 1), n;
	struct kerf_decider *decider;

	if (number(r, 1) || policy != !!n_ranges || n_ranges > KERF_DOMAIN_MAX || !n_forms || n_forms > KERF_FORMS_MAX)
		return bad(r, "a policy has 1 to 256 intervals of values and 1 to 8 forms");
	decider = kerf_decider_alloc(n_ranges);
	if (!decider)
		return -ENOMEM;
	entry->decider = decider;
	decider->stock = number(r, 8);
	decider->n_forms = n_forms;
	for (n = 0; n < n_ranges; n++) {
		decider->ranges[n].min = number(r, 8);
		decider->ranges[n].max = number(r, 8);
	}
	for (n = 0; n < n_forms; n++) {
		struct kerf_form *form = &decider->forms[n];

		form->kind = number(r, 8);
		form->a = number(r, 8);
		form->b = number(r, 8);
		form->c = number(r, 8);
		form->factor = number(r, 8);
	}
	err = r->short_read ? bad(r, "") : kerf_decider_check(decider, entry->id, r->report);
	return err || !policy ? err : kerf_decider_program(decider, fd, entry->id, r->report);
}

/* Takes the caller's files: they stay open until the policy goes. */
static int parse_hold(struct reader *r, struct kerf_txn *txn, unsigned int n)
{
	if (txn->hold || !txn->owner[0] || !n || n > KERF_HOLD_MAX)
		return bad(r, "a policy holds 1 to 64 files, named once");
	txn->hold = kerf_hold_alloc(txn->owner, n);
	if (!txn->hold)
		return -ENOMEM;
	while (txn->hold->n < n) {
		int fd = number(r, 4);
		struct file *file = fget(fd);

		if (!file)
			return bad(r, "a file to hold is not open");
		txn->hold->files[txn->hold->n++] = file;
	}
	return r->short_read ? bad(r, "") : 0;
}

/* An id may occur once: what two operations on it would mean is nobody's guess. */
static bool id_taken(const struct kerf_txn *txn, const char *id)
{
	const struct kerf_entry *other;
	unsigned int i;

	for (i = 0; i < txn->n_unsets; i++)
		if (!strcmp(txn->unsets[i], id))
			return true;
	list_for_each_entry(other, &txn->sets, node)
		if (!strcmp(other->id, id))
			return true;
	return false;
}

/* Room for what is decided once for an execution of a safe span, if the policy has places that go on with it. */
static int keep_executions(struct reader *r, struct kerf_entry *entry)
{
	unsigned int begin = 0, go_on = 0, i;

	for (i = 0; i < entry->n_locations; i++) {
		begin += entry->locations[i].role == KERF_BEGINS;
		go_on += entry->locations[i].role == KERF_GOES_ON;
	}
	if (!begin && go_on)
		return bad(r, "a place goes on with a decision that no place begins");
	if (!go_on)
		return 0;
	entry->decider->executions = kerf_executions_alloc();
	return entry->decider->executions ? 0 : -ENOMEM;
}

/* A set or a policy: an entry with its locations. */
static int parse_entry(struct reader *r, struct kerf_txn *txn, struct kerf_entry *entry, size_t kind)
{
	bool stock = !entry->n_locations;
	int err = 0;

	if (entry->n_locations > KERF_LOCATIONS_MAX || entry->n_gates > KERF_LOCATIONS_MAX ||
	    entry->n_between > KERF_BETWEEN_MAX || entry->n_spans > KERF_SPANS_MAX)
		return bad(r, "a set has 1 to 256 locations, up to 256 gates, 1024 ranges and 64 safe spans");
	if (stock && (kind == OP_POLICY || txn->mode == KERF_AT_ONCE || !entry->n_spans))
		return bad(r, "only a transition sets the stock value");
	txn->n_locations += entry->n_locations + entry->n_gates;
	if (txn->n_locations > KERF_LOCATIONS_ALL)
		return bad(r, "a transaction has up to 4096 locations");
	if (kind == OP_POLICY && !txn->owner[0])
		return bad(r, "a policy needs a name in the header");
	if (kind == OP_POLICY)
		strscpy(entry->owner, txn->owner, sizeof(entry->owner));
	if (kind == OP_POLICY || entry->n_gates)
		err = parse_decider(r, entry, kind == OP_POLICY);
	err = err ?: parse_set(r, txn, entry);
	return err || kind != OP_POLICY ? err : keep_executions(r, entry);
}

/* What is permitted for a constant that the record has set before. */
static int parse_guard(struct reader *r, struct kerf_txn *txn, const struct kerf_entry *operation)
{
	struct kerf_entry *entry;
	struct kerf_guard guard = { .given = true };

	if (operation->n_locations || operation->n_between || operation->n_gates || operation->n_spans)
		return bad(r, "a reserved field is not 0");
	guard.stock = operation->value;
	guard.min = number(r, 8);
	guard.max = number(r, 8);
	guard.step = number(r, 8);
	guard.pause_ms = number(r, 4);
	if (number(r, 4) || guard.min > guard.max || guard.pause_ms > KERF_PAUSE_MAX_MS)
		return bad(r, "a guard has a least value that is not above the greatest, and a pause of up to a day");
	list_for_each_entry(entry, &txn->sets, node) {
		if (strcmp(entry->id, operation->id))
			continue;
		if (entry->guard.given)
			return bad(r, "a constant has one guard");
		entry->guard = guard;
		return 0;
	}
	return bad(r, "a guard follows the set or policy of the same id");
}

/* What the policy of this record may cost. */
static int parse_limits(struct reader *r, struct kerf_txn *txn, const struct kerf_entry *operation)
{
	if (operation->n_locations || operation->n_between || operation->n_gates || operation->n_spans)
		return bad(r, "a reserved field is not 0");
	if (txn->limits.triggers || txn->limits.share || !txn->owner[0] || strcmp(operation->id, txn->owner))
		return bad(r, "limits are of the policy that the header names, and given once");
	txn->limits.triggers = operation->value;
	txn->limits.share = number(r, 4);
	if (number(r, 4) || operation->value < 0 || txn->limits.share > KERF_SHARE_MAX ||
	    !(txn->limits.triggers || txn->limits.share))
		return bad(r, "a policy's limits are triggers in a second, thousandths of a CPU's time up to 1000000, or both");
	return 0;
}

/* All constants of a policy share its limits, and are measured if its time has one. */
static void spread_limits(struct kerf_txn *txn)
{
	struct kerf_entry *entry;

	list_for_each_entry(entry, &txn->sets, node) {
		if (!entry->owner[0])
			continue;
		entry->limits = txn->limits;
		entry->decider->timed = txn->limits.share;
	}
}

/* What has no locations: only the id counts, or the number of files. */
static int parse_plain(struct reader *r, struct kerf_txn *txn, const struct kerf_entry *entry, size_t kind)
{
	if (kind == OP_GUARD)
		return parse_guard(r, txn, entry);
	if (kind == OP_LIMITS)
		return parse_limits(r, txn, entry);
	if (kind == OP_HOLD)
		return entry->n_between || entry->n_gates || entry->n_spans ? bad(r, "a reserved field is not 0") :
									      parse_hold(r, txn, entry->n_locations);
	if (entry->n_locations || entry->n_between || entry->n_gates || entry->n_spans)
		return bad(r, "an unset has no locations");
	if (kind == OP_UNSET)
		strscpy(txn->unsets[txn->n_unsets++], entry->id, sizeof(*txn->unsets));
	else if (txn->drop[0] || strlen(entry->id) > KERF_OWNER_MAX)
		return bad(r, "one policy can be dropped, with a name of up to 64 bytes");
	else
		strscpy(txn->drop, entry->id, sizeof(txn->drop));
	return 0;
}

static int parse_operation(struct reader *r, struct kerf_txn *txn)
{
	struct kerf_entry *entry;
	size_t kind = number(r, 1), id_len = number(r, 1);
	bool located = kind == OP_SET || kind == OP_POLICY;
	int err;

	if (!id_len || id_len > KERF_ID_MAX || kind < OP_SET || kind > OP_LIMITS)
		return bad(r, "an operation is a set (1), unset (2), policy (3), drop (4), hold (5), guard (6) or limits (7) with an id of 1 to 160 bytes");
	entry = kvzalloc(sizeof(*entry), GFP_KERNEL);
	if (!entry)
		return -ENOMEM;
	entry->n_locations = number(r, 2);
	entry->n_between = number(r, 2);
	entry->n_gates = number(r, 2);
	entry->n_spans = number(r, 2);
	entry->value = number(r, 8);
	err = text(r, entry->id, id_len, false);
	if (!err && (located || kind == OP_UNSET) && id_taken(txn, entry->id))
		err = bad(r, "an id occurs twice");
	if (!err)
		err = located ? parse_entry(r, txn, entry, kind) : parse_plain(r, txn, entry, kind);
	if (err || !located) {
		kerf_entry_free(entry);
		return err;
	}
	list_add_tail(&entry->node, &txn->sets);
	txn->n_sets++;
	return 0;
}

static int parse_header(struct reader *r, struct kerf_txn *txn, size_t *operations)
{
	const u8 *magic = take(r, 8);
	u32 protocol = number(r, 4), len = number(r, 4), flags = number(r, 4), owner, note;

	if (!magic || memcmp(magic, KERF_MAGIC, 8))
		return bad(r, "it does not start with " KERF_MAGIC);
	if (protocol != KERF_PROTOCOL)
		return kerf_refuse(r->report, -EPROTO, "the record is of protocol %u, this module speaks %u",
				   protocol, KERF_PROTOCOL);
	if (len != r->len)
		return bad(r, "its length field differs from the bytes written");
	txn->timeout_ms = number(r, 4);
	txn->n_targets = number(r, 2);
	*operations = number(r, 2);
	owner = number(r, 2);
	note = number(r, 2);
	if (owner > KERF_OWNER_MAX || note > KERF_NOTE_MAX || flags & ~FLAG_KNOWN || txn->n_targets > KERF_TARGETS_MAX ||
	    *operations > KERF_OPERATIONS_MAX || txn->timeout_ms > KERF_TIMEOUT_MAX_MS)
		return bad(r, "unknown flags, or more than 32 targets, 256 operations, 60000 ms, 64 bytes of a policy's name or 200 of a note");
	txn->dry_run = flags & FLAG_DRY_RUN;
	txn->unset_all = flags & FLAG_UNSET_ALL;
	txn->replace = flags & FLAG_REPLACE;
	txn->mode = flags >> FLAG_MODE_SHIFT;
	if (txn->mode > KERF_GLOBALLY)
		return bad(r, "a transition is immediate (0), by task (1) or global (2)");
	if (txn->unset_all && *operations)
		return bad(r, "unset-all goes alone");
	return r->short_read ? bad(r, "") : text(r, txn->owner, owner, false) ?: text(r, txn->note, note, true);
}

int kerf_record_parse(const u8 *record, size_t len, struct kerf_txn *txn)
{
	struct reader r = { .data = record, .len = len, .report = txn->report };
	size_t operations = 0, i;
	int err;

	INIT_LIST_HEAD(&txn->sets);
	err = parse_header(&r, txn, &operations);
	if (err)
		return err;
	txn->unsets = kvcalloc(max(operations, (size_t)1), sizeof(*txn->unsets), GFP_KERNEL);
	if (!txn->unsets)
		return -ENOMEM;
	for (i = 0; i < txn->n_targets && !err; i++)
		err = parse_target(&r, &txn->targets[i]);
	for (i = 0; i < operations && !err; i++)
		err = parse_operation(&r, txn);
	if (!err && r.at != r.len)
		err = bad(&r, "bytes are left over");
	if (!err)
		spread_limits(txn);
	return err;
}

void kerf_entry_free(struct kerf_entry *entry)
{
	unsigned int i;

	kerf_decider_free(entry->decider);
	for (i = 0; entry->spans && i < entry->n_spans; i++) {
		kvfree(entry->spans[i].ranges);
		kvfree(entry->spans[i].exits);
	}
	kvfree(entry->spans);
	kvfree(entry->gates);
	kvfree(entry->locations);
	kvfree(entry->between);
	kvfree(entry);
}

void kerf_txn_free(struct kerf_txn *txn)
{
	struct kerf_entry *entry, *next;

	if (txn->sets.next)
		list_for_each_entry_safe(entry, next, &txn->sets, node)
			kerf_entry_free(entry);
	kerf_hold_free(txn->hold);
	kvfree(txn->unsets);
	kvfree(txn);
}
