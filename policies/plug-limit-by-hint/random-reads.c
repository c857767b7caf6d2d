// SPDX-License-Identifier: GPL-2.0-only
/*
 * random-reads DEVICE TURNS: 256 reads of one io_submit that do not merge, as often as said. Prints the median time from
 * the call to the first completion, in microseconds: a read waits for those that are kept back with it.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { COUNT = 256, SIZE = 4096, MOST = 10000 };

static aio_context_t context;
static double first[MOST];
static pthread_barrier_t turn_begins, turn_ends;
static long turns;

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1e6 + time.tv_nsec / 1e3;
}

/* Waits beside the submitting thread, since io_submit itself takes all of the time. */
static void *wait_for_reads(void *unused)
{
	struct io_event events[COUNT];

	for (long turn = 0; turn < turns; turn++) {
		pthread_barrier_wait(&turn_begins);
		if (syscall(SYS_io_getevents, context, 1, 1, events, NULL) != 1)
			exit(1);
		first[turn] = now();
		if (syscall(SYS_io_getevents, context, COUNT - 1, COUNT - 1, events, NULL) != COUNT - 1)
			exit(1);
		pthread_barrier_wait(&turn_ends);
	}
	return NULL;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	static struct iocb iocbs[COUNT], *list[COUNT];
	char *buffer = aligned_alloc(SIZE, COUNT * SIZE);
	int fd = argc == 3 ? open(argv[1], O_RDONLY | O_DIRECT) : -1;
	pthread_t waiter;

	turns = argc == 3 ? atol(argv[2]) : 0;
	if (fd < 0 || !buffer || turns < 1 || turns > MOST || syscall(SYS_io_setup, COUNT, &context)) {
		perror("random-reads");
		return 1;
	}
	pthread_barrier_init(&turn_begins, NULL, 2);
	pthread_barrier_init(&turn_ends, NULL, 2);
	if (pthread_create(&waiter, NULL, wait_for_reads, NULL))
		return 1;
	for (long turn = 0; turn < turns; turn++) {
		double start;

		for (int i = 0; i < COUNT; i++) {
			iocbs[i] = (struct iocb){ .aio_fildes = fd, .aio_lio_opcode = IOCB_CMD_PREAD,
				.aio_buf = (unsigned long)buffer + i * SIZE, .aio_nbytes = SIZE,
				.aio_offset = 2L * i * SIZE };
			list[i] = &iocbs[i];
		}
		pthread_barrier_wait(&turn_begins);
		start = now();
		if (syscall(SYS_io_submit, context, COUNT, list) != COUNT) {
			perror("io_submit");
			return 1;
		}
		pthread_barrier_wait(&turn_ends);
		first[turn] -= start;
	}
	qsort(first, turns, sizeof(*first), by_value);
	printf("%.1f\n", first[turns / 2]);
	return 0;
}
