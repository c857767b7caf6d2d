// Walks through memory in patterns whose misses follow from the sizes of a cache: `pattern`.
#include <stdlib.h>
#include <string.h>

#define MARK(constant) asm volatile("movabs $" #constant ", %%rax" ::: "rax")
// Half a byte of the next interval's name: 0x…4d00 + half.
#define HALF(digit) MARK(0x6b657266b3e14d0##digit)

// `rounds` times `count` loads, `stride` bytes apart: 4 * count + 4 instructions a round, and nothing else touches memory. The
// mark follows the setting of the operands, so that between marks there is nothing but the rounds.
static void walk(char *memory, long stride, long count, long rounds)
{
	asm volatile("movabs $0x6b657266b3e14c01, %%rax\n"
		     "1:	mov %1, %%rax\n\t"
		     "mov %3, %%rcx\n"
		     "2:	mov (%%rax), %%bl\n\t"
		     "add %2, %%rax\n\t"
		     "dec %%rcx\n\t"
		     "jnz 2b\n\t"
		     "dec %0\n\t"
		     "jnz 1b\n\t"
		     "movabs $0x6b657266b3e14c02, %%rax"
		     : "+r"(rounds)
		     : "r"(memory), "r"(stride), "r"(count)
		     : "rax", "rbx", "rcx", "cc", "memory");
}

int main(void)
{
	char *memory = aligned_alloc(4096, 4 << 20);

	if (!memory)
		return 1;
	memset(memory, 1, 4 << 20);
	// The first walk of each kind only brings everything in; its interval has no name.
	walk(memory, 64, 16384, 1);
	HALF(6); HALF(1);
	walk(memory, 64, 16384, 4);	// a: 1 MiB, line by line: more than the first level, less than the second
	walk(memory, 64, 256, 1);
	HALF(6); HALF(2);
	walk(memory, 64, 256, 100);	// b: 16 KiB: fits
	walk(memory, 4096, 13, 1);
	HALF(6); HALF(3);
	walk(memory, 4096, 13, 1000);	// c: thirteen lines of one set
	walk(memory, 4096, 12, 1);
	HALF(6); HALF(4);
	walk(memory, 4096, 12, 1000);	// d: twelve
	return 0;
}
