/* text START END: a checksum of the kernel's text between two addresses (in hexadecimal), read through /proc/kcore. Static. */
#include <elf.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	unsigned long start = argc == 3 ? strtoul(argv[1], NULL, 16) : 0, end = argc == 3 ? strtoul(argv[2], NULL, 16) : 0;
	unsigned long sum = 0xcbf29ce484222325;
	int fd = open("/proc/kcore", O_RDONLY);
	static unsigned char block[1 << 16];
	Elf64_Ehdr file;
	Elf64_Phdr part;

	if (pread(fd, &file, sizeof(file), 0) != sizeof(file))
		return 1;
	for (int n = 0; n < file.e_phnum; n++) {
		if (pread(fd, &part, sizeof(part), file.e_phoff + n * sizeof(part)) != sizeof(part))
			return 1;
		if (part.p_type == PT_LOAD && part.p_vaddr <= start && end <= part.p_vaddr + part.p_memsz)
			break;
		part.p_type = PT_NULL;
	}
	if (part.p_type != PT_LOAD || start >= end)
		return 1;
	while (start < end) {
		size_t want = end - start < sizeof(block) ? end - start : sizeof(block);

		if (pread(fd, block, want, part.p_offset + start - part.p_vaddr) != (ssize_t)want)
			return 1;
		for (size_t n = 0; n < want; n++)
			sum = (sum ^ block[n]) * 0x100000001b3;
		start += want;
	}
	printf("%016lx\n", sum);
	return 0;
}
