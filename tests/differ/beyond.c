/* Whether this kernel shows pages of a map that lie beyond the end of the file. It must not (SIGBUS), but Linux 6.18 maps
 * large pages of tmpfs as a whole where a fault finds them alone. Run by tests/harness/differ.py on a file of its own on a
 * tmpfs with huge=always.
 *
 * Usage: beyond FILE. Ends with 0 if it does not, 1 if it does. */
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

enum { SIZE = 300001, HUGE = 2 << 20, PAGE = 4096 };

static void on_bus(int number) { (void)number; _exit(0); }

int main(int argc, char **argv) {
    static char bytes[SIZE];
    int fd = argc == 2 ? open(argv[1], O_RDWR | O_CREAT | O_TRUNC, 0600) : -1;
    if (fd < 0 || write(fd, bytes, SIZE) != SIZE) return 2;
    /* A large page is mapped as a whole where all of it fits. */
    char *room = mmap(NULL, 3 * HUGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    char *aligned = (char *)(((uintptr_t)room + HUGE - 1) / HUGE * HUGE);
    volatile char *at = mmap(aligned, 2 * HUGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
    if (room == MAP_FAILED || at == MAP_FAILED) return 2;
    at[SIZE - 1] = 1;
    signal(SIGBUS, on_bus);
    return !at[(SIZE / PAGE + 1) * PAGE];
}
