// SPDX-License-Identifier: GPL-2.0-only
/*
 * write-blocks RECLAIM: writes blocks one after the other into a large anonymous mapping, and after every fourth one overwrites one that it
 * wrote long before. RECLAIM is the file memory.reclaim of its cgroup: as an agent for memory would, it asks there for as much as it has written, so
 * that about 16 MiB stay. Prints how long the writes of a page took:
 *
 *   writes NUMBER p99 MICROSECONDS
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096UL
#define BLOCK 64UL		/* pages */
#define BLOCKS 1024UL
#define BACK 512UL		/* so many blocks before is the one that is overwritten */
#define RESIDENT 4096UL		/* pages */
#define STEP 1024UL		/* pages that are written until the next request */
#define RANDOM 1024UL		/* bytes of a page that do not compress */
#define MOST (2 * BLOCKS * BLOCK)

static char *region;
static int reclaim;
static unsigned int took[MOST];	/* us */
static unsigned long writes;
static unsigned long random_state = 88172645463325252UL;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static unsigned long microseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000UL + now.tv_nsec / 1000;
}

static void fill(char *page, unsigned long word)
{
	unsigned long *words = (unsigned long *)page;

	for (unsigned long i = 0; i < PAGE / sizeof(*words); i++) {
		if (i < RANDOM / sizeof(*words)) {
			random_state ^= random_state << 13;
			random_state ^= random_state >> 7;
			random_state ^= random_state << 17;
		}
		words[i] = i < RANDOM / sizeof(*words) ? random_state : word;
	}
}

static void write_block(unsigned long block)
{
	for (unsigned long i = block * BLOCK; i < (block + 1) * BLOCK; i++) {
		unsigned long begin = microseconds();

		fill(region + i * PAGE, i);
		took[writes++] = microseconds() - begin;
	}
}

static void give_back(unsigned long pages)
{
	char text[32];

	snprintf(text, sizeof(text), "%luK", pages * PAGE / 1024);
	/* EAGAIN if it was not all of it: then there is more next time. */
	if (write(reclaim, text, strlen(text)) < 0)
		return;
}

static int compare(const void *a, const void *b)
{
	unsigned int left = *(const unsigned int *)a, right = *(const unsigned int *)b;

	return left < right ? -1 : left > right;
}

int main(int argc, char **argv)
{
	cpu_set_t set;

	if (argc != 2) {
		fprintf(stderr, "usage: write-blocks RECLAIM\n");
		return 1;
	}
	CPU_ZERO(&set);
	CPU_SET(0, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		fail("sched_setaffinity");
	reclaim = open(argv[1], O_WRONLY);
	if (reclaim < 0)
		fail(argv[1]);
	region = mmap(NULL, BLOCKS * BLOCK * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (region == MAP_FAILED || madvise(region, BLOCKS * BLOCK * PAGE, MADV_NOHUGEPAGE))
		fail("mmap");
	for (unsigned long block = 0; block < BLOCKS; block++) {
		unsigned long written = (block + 1) * BLOCK;

		write_block(block);
		if (written > RESIDENT && written % STEP == 0)
			give_back(STEP);
		if (block >= BACK && block % 4 == 3)
			write_block(block - BACK);
	}
	qsort(took, writes, sizeof(*took), compare);
	printf("writes %lu p99 %u\n", writes, took[writes * 99 / 100]);
	return 0;
}
