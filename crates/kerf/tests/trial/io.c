/*
 * io WORKLOAD DEVICE TIMES: one io_submit of 256 direct requests of 4 KiB, as often as said. Without libaio, static.
 *
 * streams   writes of two sequential streams, side by side
 * shuffled  sequential writes, shuffled within segments of 128 KiB
 * random    reads that have no neighbours
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { COUNT = 256, SIZE = 4096, SEGMENT = 32, STREAM = 1 << 14 };

static void shuffle(long *pages, int count)
{
	for (int i = count - 1; i > 0; i--) {
		int other = random() % (i + 1);
		long page = pages[i];

		pages[i] = pages[other];
		pages[other] = page;
	}
}

/* The pages of a turn, in order. */
static void choose(const char *workload, long turn, long *pages)
{
	for (int i = 0; i < COUNT; i++) {
		if (!strcmp(workload, "streams"))
			pages[i] = turn * COUNT / 2 + i / 2 + (i % 2 ? STREAM : 0);
		else if (!strcmp(workload, "shuffled"))
			pages[i] = turn * COUNT + i;
		else
			pages[i] = (turn * COUNT + i) * 2;
	}
	if (!strcmp(workload, "shuffled"))
		for (int i = 0; i < COUNT; i += SEGMENT)
			shuffle(pages + i, SEGMENT);
	else if (!strcmp(workload, "random"))
		shuffle(pages, COUNT);
}

int main(int argc, char **argv)
{
	static struct iocb iocbs[COUNT], *list[COUNT];
	static struct io_event events[COUNT];
	static long pages[COUNT];
	aio_context_t context = 0;
	struct timespec now;
	int fd = argc == 4 ? open(argv[2], O_RDWR | O_DIRECT) : -1;
	int opcode = argc == 4 && !strcmp(argv[1], "random") ? IOCB_CMD_PREAD : IOCB_CMD_PWRITE;
	char *buffer = aligned_alloc(SIZE, COUNT * SIZE);

	if (fd < 0 || !buffer || syscall(SYS_io_setup, COUNT, &context)) {
		perror("io");
		return 1;
	}
	clock_gettime(CLOCK_REALTIME, &now);
	srandom(now.tv_nsec);
	for (long turn = 0; turn < atol(argv[3]); turn++) {
		choose(argv[1], turn, pages);
		for (int i = 0; i < COUNT; i++) {
			iocbs[i] = (struct iocb){ .aio_fildes = fd, .aio_lio_opcode = opcode,
				.aio_buf = (unsigned long)buffer + i * SIZE, .aio_nbytes = SIZE,
				.aio_offset = pages[i] * SIZE };
			list[i] = &iocbs[i];
		}
		if (syscall(SYS_io_submit, context, COUNT, list) != COUNT ||
		    syscall(SYS_io_getevents, context, COUNT, COUNT, events, NULL) != COUNT) {
			perror("io");
			return 1;
		}
	}
	return 0;
}
