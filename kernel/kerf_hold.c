// SPDX-License-Identifier: GPL-2.0-only
/* Files that a loaded policy keeps open, so that the BPF programs beside it stay attached without their loader. */
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/slab.h>

#include "kerf.h"

/* Room for @n files of the caller. NULL: no memory. */
struct kerf_hold *kerf_hold_alloc(const char *owner, unsigned int n)
{
	struct kerf_hold *hold = kzalloc(struct_size(hold, files, n), GFP_KERNEL);

	if (!hold)
		return NULL;
	INIT_LIST_HEAD(&hold->node);
	strscpy(hold->owner, owner, sizeof(hold->owner));
	return hold;
}

void kerf_hold_free(struct kerf_hold *hold)
{
	if (!hold)
		return;
	list_del(&hold->node);
	while (hold->n--)
		fput(hold->files[hold->n]);
	kfree(hold);
}
