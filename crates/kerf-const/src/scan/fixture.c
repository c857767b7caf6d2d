// SPDX-License-Identifier: GPL-2.0-only
/* A queue that is served in batches, written for the tests of the scanner. */

#include <linux/jiffies.h>

#define QUEUE_MAGIC 0x51554555
#define QUEUE_F_BUSY (1 << 3)
#define QUEUE_SLOTS 16

/* How many requests are served at a time, to avoid long stalls. */
#define QUEUE_BATCH 32
#define QUEUE_POLL_DELAY (HZ / 5)	/* between two looks */
#define QUEUE_HIGH_WATERMARK (4 * QUEUE_BATCH)

enum queue_state {
	QUEUE_IDLE = 2,
	QUEUE_RUNNING = 3,
};

enum {
	MAX_IDLE_SPINS = 64,	/* spins before it sleeps */
};

static const unsigned int queue_weight_pct = 75;

struct queue {
	struct request *slots[QUEUE_SLOTS];
	unsigned long flags;
	int depth;
};

static int queue_serve(struct queue *q)
{
	int done = 0;

	while (done < QUEUE_BATCH && q->depth > 0) {
		serve(q, q->slots[done % QUEUE_SLOTS]);
		done++;
	}
	if (q->depth > QUEUE_HIGH_WATERMARK)
		q->flags |= QUEUE_F_BUSY;
	if (q->depth * queue_weight_pct / 100 > done)
		schedule_delayed_work(&q->work, QUEUE_POLL_DELAY);
	else
		mod_timer(&q->timer, jiffies + msecs_to_jiffies(20));
	return done;
}

static void queue_wait(struct queue *q)
{
	int spins = 0;

	while (q->state == QUEUE_RUNNING && spins < MAX_IDLE_SPINS)
		spins++;
	q->rate_avg += (q->rate - q->rate_avg) >> 3;
	if (q->magic != QUEUE_MAGIC || q->type == 7)
		memset(q->name, 0, 40);
}
