/*
 * attach HOW FUNCTION OFFSET COMMAND...: attaches a BPF program of two or three instructions and runs a command meanwhile. HOW:
 *   kprobe   nothing, at FUNCTION+OFFSET        write   writes rax there by the module's function
 *   return   instead of the module's function   ops     through the module's struct_ops
 * It speaks to the kernel itself, as no library here calls functions of modules. Static.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/btf.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WRITE, ASK, OPS, OPS_VALUE, IDS };

/* Younger than the headers of many distributions, as is the member behind map_extra that goes with it. */
#define VALUE_TYPE_OF_MODULE (1U << 15)

static char log_text[1 << 16];

static void give_up(const char *what)
{
	perror(what);
	fputs(log_text, stderr);
	exit(1);
}

static int bpf(int command, union bpf_attr *attr, const char *what)
{
	int result = syscall(SYS_bpf, command, attr, sizeof(*attr));

	if (result < 0)
		give_up(what);
	return result;
}

/* The module's types. */
static int module_types(void)
{
	union bpf_attr attr;
	unsigned int id = 0;

	for (;;) {
		struct bpf_btf_info info;
		char name[64] = "";
		int fd;

		memset(&attr, 0, sizeof(attr));
		attr.start_id = id;
		bpf(BPF_BTF_GET_NEXT_ID, &attr, "find the module's types");
		id = attr.next_id;
		memset(&attr, 0, sizeof(attr));
		attr.btf_id = id;
		fd = bpf(BPF_BTF_GET_FD_BY_ID, &attr, "open types");
		memset(&attr, 0, sizeof(attr));
		memset(&info, 0, sizeof(info));
		info.name = (unsigned long)name;
		info.name_len = sizeof(name);
		attr.info.bpf_fd = fd;
		attr.info.info_len = sizeof(info);
		attr.info.info = (unsigned long)&info;
		bpf(BPF_OBJ_GET_INFO_BY_FD, &attr, "ask for the types' name");
		if (!strcmp(name, "kerf_bench"))
			return fd;
		close(fd);
	}
}

static void type_numbers(int ids[IDS])
{
	FILE *file = fopen("/sys/module/kerf_bench/parameters/btf_ids", "r");

	if (!file || fscanf(file, "%d,%d,%d,%d", &ids[0], &ids[1], &ids[2], &ids[3]) != IDS)
		give_up("read the numbers of types");
	fclose(file);
}

/* Types of our own, as a map wants some: one int. */
static int own_types(void)
{
	const struct {
		struct btf_header head;
		struct btf_type type;
		unsigned int encoding;
		char names[3];
	} types = {
		.head = { .magic = BTF_MAGIC, .version = BTF_VERSION, .hdr_len = sizeof(types.head), .type_len = 16,
			  .str_off = 16, .str_len = sizeof(types.names) },
		.type = { .name_off = 1, .info = BTF_KIND_INT << 24, .size = 4 },
		.encoding = 32,
		.names = "\0i",
	};
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.btf = (unsigned long)&types;
	attr.btf_size = sizeof(types.head) + 16 + sizeof(types.names);
	return bpf(BPF_BTF_LOAD, &attr, "load types");
}

static int load(union bpf_attr *attr, const struct bpf_insn *code, unsigned int n)
{
	attr->insns = (unsigned long)code;
	attr->insn_cnt = n;
	attr->license = (unsigned long)"GPL";
	attr->log_buf = (unsigned long)log_text;
	attr->log_size = sizeof(log_text);
	attr->log_level = 1;
	return bpf(BPF_PROG_LOAD, attr, "load");
}

static const struct bpf_insn nothing[] = {
	{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 0, .imm = 0 },
	{ .code = BPF_JMP | BPF_EXIT },
};

static void attach_probe(int program, const char *function, unsigned long offset)
{
	struct perf_event_attr event = { .size = sizeof(event), .sample_period = 1, .wakeup_events = 1 };
	FILE *type = fopen("/sys/bus/event_source/devices/kprobe/type", "r");
	int fd;

	if (!type || fscanf(type, "%u", &event.type) != 1)
		give_up("read the type of kprobes");
	event.config1 = (unsigned long)function;
	event.config2 = offset;
	fd = syscall(SYS_perf_event_open, &event, -1, 0, -1, 0);
	if (fd < 0 || ioctl(fd, PERF_EVENT_IOC_SET_BPF, program) || ioctl(fd, PERF_EVENT_IOC_ENABLE, 0))
		give_up("attach the probe");
}

static void kprobe(const char *function, unsigned long offset)
{
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.prog_type = BPF_PROG_TYPE_KPROBE;
	attach_probe(load(&attr, nothing, 2), function, offset);
}

static void probe_that_writes(const char *function, unsigned long offset, const int *ids)
{
	const struct bpf_insn code[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = 2, .imm = 4 },
		{ .code = BPF_JMP | BPF_CALL, .src_reg = BPF_PSEUDO_KFUNC_CALL, .off = 1, .imm = ids[WRITE] },
		nothing[0], nothing[1],
	};
	int files[2] = { 0, module_types() };
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.prog_type = BPF_PROG_TYPE_KPROBE;
	attr.fd_array = (unsigned long)files;
	attach_probe(load(&attr, code, 4), function, offset);
}

static void instead(const int *ids)
{
	union bpf_attr attr;
	int program;

	memset(&attr, 0, sizeof(attr));
	attr.prog_type = BPF_PROG_TYPE_TRACING;
	attr.expected_attach_type = BPF_MODIFY_RETURN;
	attr.attach_btf_id = ids[ASK];
	attr.attach_btf_obj_fd = module_types();
	program = load(&attr, nothing, 2);
	memset(&attr, 0, sizeof(attr));
	attr.raw_tracepoint.prog_fd = program;
	bpf(BPF_RAW_TRACEPOINT_OPEN, &attr, "attach to the function");
}

static void by_ops(const int *ids)
{
	unsigned char value[128] = { 0 };	/* the kernel's part, then the struct in a cache line of its own */
	int types = module_types(), program, map, key = 0;
	union bpf_attr attr;

	memset(&attr, 0, sizeof(attr));
	attr.prog_type = BPF_PROG_TYPE_STRUCT_OPS;
	attr.attach_btf_id = ids[OPS];
	attr.attach_btf_obj_fd = types;
	program = load(&attr, nothing, 2);
	memset(&attr, 0, sizeof(attr));
	attr.map_type = BPF_MAP_TYPE_STRUCT_OPS;
	attr.key_size = sizeof(key);
	attr.value_size = sizeof(value);
	attr.max_entries = 1;
	attr.map_flags = VALUE_TYPE_OF_MODULE;
	attr.btf_fd = own_types();
	attr.btf_vmlinux_value_type_id = ids[OPS_VALUE];
	memcpy((char *)&attr.map_extra + sizeof(attr.map_extra), &types, sizeof(types));
	map = bpf(BPF_MAP_CREATE, &attr, "make the struct_ops");
	memcpy(value + 64, &program, sizeof(program));
	memset(&attr, 0, sizeof(attr));
	attr.map_fd = map;
	attr.key = (unsigned long)&key;
	attr.value = (unsigned long)value;
	bpf(BPF_MAP_UPDATE_ELEM, &attr, "register the struct_ops");
}

int main(int argc, char **argv)
{
	const char *how = argc > 4 ? argv[1] : "";
	int ids[IDS], status = 1;

	type_numbers(ids);
	if (!strcmp(how, "kprobe"))
		kprobe(argv[2], atol(argv[3]));
	else if (!strcmp(how, "write"))
		probe_that_writes(argv[2], atol(argv[3]), ids);
	else if (!strcmp(how, "return"))
		instead(ids);
	else if (!strcmp(how, "ops"))
		by_ops(ids);
	else
		return 2;
	/* The probe becomes a jump after a while. */
	sleep(1);
	if (!fork()) {
		execvp(argv[4], argv + 4);
		give_up(argv[4]);
	}
	wait(&status);
	return status != 0;
}
