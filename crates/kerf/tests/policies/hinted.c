/* hinted MAP COMMAND...: puts this thread's id into a pinned map, as an application would, and becomes the command. Static. */
#define _GNU_SOURCE
#include <linux/bpf.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static long bpf(int command, union bpf_attr *attr)
{
	return syscall(SYS_bpf, command, attr, sizeof(*attr));
}

int main(int argc, char **argv)
{
	unsigned int thread = getpid(), hint = 1;
	union bpf_attr attr;
	int map;

	if (argc < 3)
		return 2;
	memset(&attr, 0, sizeof(attr));
	attr.pathname = (unsigned long)argv[1];
	map = bpf(BPF_OBJ_GET, &attr);
	if (map < 0) {
		perror(argv[1]);
		return 1;
	}
	memset(&attr, 0, sizeof(attr));
	attr.map_fd = map;
	attr.key = (unsigned long)&thread;
	attr.value = (unsigned long)&hint;
	if (bpf(BPF_MAP_UPDATE_ELEM, &attr)) {
		perror("fill the map");
		return 1;
	}
	close(map);
	execvp(argv[2], argv + 2);
	perror(argv[2]);
	return 1;
}
