// SPDX-License-Identifier: GPL-2.0-only
/*
 * migrate-hot PAGES MOVES: moves PAGES hot pages MOVES times between the nodes 0 and 1 by move_pages(2), while two threads read one
 * page at random about each millisecond. Prints what became of the reads that began during a move, and how many pages were moved:
 *
 *   reads NUMBER p99 MICROSECONDS longest MICROSECONDS waited PER_THOUSAND moved PAGES
 *
 * A read has waited if it was a page fault: all pages are there, so its page was being moved.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define READERS 2
#define PAUSE 1000		/* us between two reads of a thread */
#define LONGEST 1000000		/* us; what takes longer counts as this */
#define MOVE (1 << 1)		/* MPOL_MF_MOVE */

static char *region;
static unsigned long pages;
static atomic_ulong begin = -1UL, end;	/* of the last move, ns */
static atomic_bool done;

static unsigned int took[READERS][LONGEST + 1];	/* reads that took so many us */
static unsigned int waited[READERS];

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		fail("sched_setaffinity");
}

static unsigned long nanoseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000UL + now.tv_nsec;
}

static long faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_THREAD, &usage);
	return usage.ru_minflt;
}

static void *reader(void *number)
{
	unsigned long self = (unsigned long)number;
	unsigned long random = 88172645463325252UL + self;

	run_on(self + 1);
	while (!atomic_load(&done)) {
		unsigned long start, us;
		long before, after;

		usleep(PAUSE);
		random ^= random << 13;
		random ^= random >> 7;
		random ^= random << 17;
		before = faults();
		start = nanoseconds();
		*(volatile char *)(region + random % pages * PAGE);
		us = (nanoseconds() - start) / 1000;
		after = faults();
		if (start < atomic_load(&begin) || start >= atomic_load(&end))
			continue;
		took[self][us < LONGEST ? us : LONGEST]++;
		waited[self] += after > before;
	}
	return NULL;
}

/* Moves all pages to @node and returns how many are there. */
static unsigned long move(int node)
{
	static void **addresses;
	static int *nodes, *status;
	unsigned long moved = 0;

	if (!addresses) {
		addresses = calloc(pages, sizeof(*addresses));
		nodes = calloc(pages, sizeof(*nodes));
		status = calloc(pages, sizeof(*status));
		if (!addresses || !nodes || !status)
			fail("calloc");
	}
	for (unsigned long i = 0; i < pages; i++) {
		addresses[i] = region + i * PAGE;
		nodes[i] = node;
		status[i] = -1;
	}
	atomic_store(&end, -1UL);
	atomic_store(&begin, nanoseconds());
	if (syscall(SYS_move_pages, 0, pages, addresses, nodes, status, MOVE) < 0)
		fail("move_pages");
	atomic_store(&end, nanoseconds());
	for (unsigned long i = 0; i < pages; i++)
		moved += status[i] == node;
	return moved;
}

static void print(unsigned long moved)
{
	unsigned long all = 0, passed = 0, p99 = 0, longest = 0, late = 0;

	for (int i = 0; i < READERS; i++) {
		late += waited[i];
		for (unsigned long us = 0; us <= LONGEST; us++)
			all += took[i][us];
	}
	if (!all) {
		fprintf(stderr, "no reads\n");
		exit(1);
	}
	for (unsigned long us = 0; us <= LONGEST; us++) {
		unsigned long here = 0;

		for (int i = 0; i < READERS; i++)
			here += took[i][us];
		if (!here)
			continue;
		if (passed * 100 < all * 99)
			p99 = us;
		passed += here;
		longest = us;
	}
	printf("reads %lu p99 %lu longest %lu waited %.1f moved %lu\n", all, p99, longest, 1000.0 * late / all, moved);
}

int main(int argc, char **argv)
{
	pthread_t threads[READERS];
	unsigned long moved = 0;

	if (argc != 3 || !(pages = strtoul(argv[1], NULL, 10))) {
		fprintf(stderr, "usage: migrate-hot PAGES MOVES\n");
		return 1;
	}
	run_on(0);
	region = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (region == MAP_FAILED || madvise(region, pages * PAGE, MADV_NOHUGEPAGE))
		fail("mmap");
	memset(region, 1, pages * PAGE);
	memset(took, 0, sizeof(took));	/* no page faults of its own later */
	move(0);
	for (unsigned long i = 0; i < READERS; i++)
		if (pthread_create(&threads[i], NULL, reader, (void *)i))
			fail("pthread_create");
	usleep(50000);
	for (int i = 0; i < atoi(argv[2]); i++) {
		moved += move(i % 2 ? 0 : 1);
		usleep(50000);
	}
	atomic_store(&done, true);
	for (int i = 0; i < READERS; i++)
		pthread_join(threads[i], NULL);
	print(moved);
	return 0;
}
