// SPDX-License-Identifier: GPL-2.0-only
/*
 * fetch ADDRESS PATH FLOWS TIMES: so many flows at once fetch a file by HTTP, each so many times, one connection after the
 * other. Prints for each connection how many microseconds it took, from connect() to the end of the file.
 */
#include <arpa/inet.h>
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char buffer[1 << 16];

static long long now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000LL + time.tv_nsec / 1000;
}

/* Reads to the end. Was it the whole of a file that is there? */
static int receive(int fd)
{
	const char *field, *body;
	ssize_t got, total = 0;
	size_t head = 0;
	long long size;

	/* The head is in the first KiB. */
	while (head < 1024) {
		got = read(fd, buffer + head, 1024 - head);
		if (got < 0)
			err(1, "read");
		if (!got)
			return 0;
		head += got;
	}
	buffer[head] = 0;
	field = strstr(buffer, "\r\nContent-Length: ");
	body = strstr(buffer, "\r\n\r\n");
	if (strncmp(buffer + 8, " 200 ", 5) || !field || !body)
		return 0;
	size = atoll(field + 18) + (body + 4 - buffer);
	for (total = head; (got = read(fd, buffer, sizeof(buffer))) > 0; total += got)
		;
	if (got < 0)
		err(1, "read");
	return total == size;
}

static void fetch(const struct sockaddr_in *to, const char *path)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	long long start = now();

	if (fd < 0 || connect(fd, (const struct sockaddr *)to, sizeof(*to)))
		err(1, "connect");
	if (dprintf(fd, "GET %s HTTP/1.0\r\n\r\n", path) < 0)
		err(1, "write");
	if (!receive(fd))
		errx(1, "%s did not come as a whole", path);
	printf("%lld\n", now() - start);
	fflush(stdout);
	close(fd);
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(80) };
	int flows, times, status, failed = 0;

	if (argc != 5 || !inet_aton(argv[1], &to.sin_addr))
		errx(2, "usage: fetch ADDRESS PATH FLOWS TIMES");
	times = atoi(argv[4]);
	for (flows = atoi(argv[3]); flows > 0; flows--) {
		pid_t pid = fork();

		if (pid < 0)
			err(1, "fork");
		if (!pid) {
			while (times-- > 0)
				fetch(&to, argv[2]);
			return 0;
		}
	}
	while (wait(&status) > 0)
		failed |= status;
	return !!failed;
}
