/* Reads one file with system calls from inline assembly and writes its bytes to standard output. Dynamically
 * linked: the library is loaded, and sees nothing. Usage: reader_asm read|mixed|mmap FILE SIZE
 * `mixed` opens with libc's open, which is hooked, and reads past the hooks. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "asm.h"

static char buffer[1 << 16];

static long check(const char *what, long result) {
    if (result < 0 && result > -4096) {
        fprintf(stderr, "%s: errno %ld, %s\n", what, -result, strerror((int)-result));
        exit(1);
    }
    return result;
}

static void put(const char *bytes, long count) {
    while (count > 0) {
        long done = check("write", raw(SYS_write, 1, (long)bytes, count, 0, 0, 0));
        bytes += done;
        count -= done;
    }
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    const char *way = argv[1];
    long size = strtol(argv[3], NULL, 10);
    long fd = strcmp(way, "mixed") == 0 ? open(argv[2], O_RDONLY)
                                        : raw(SYS_openat, AT_FDCWD, (long)argv[2], O_RDONLY, 0, 0, 0);
    check("open", fd);
    if (fd == -1) return 1;
    if (strcmp(way, "mmap") == 0) {
        char *map = (char *)check("mmap", raw(SYS_mmap, 0, size, PROT_READ, MAP_SHARED, fd, 0));
        for (long at = 0; at < size; at += (long)sizeof buffer) {
            long step = size - at < (long)sizeof buffer ? size - at : (long)sizeof buffer;
            memcpy(buffer, map + at, (size_t)step);
            put(buffer, step);
        }
        return 0;
    }
    for (long got; (got = check("read", raw(SYS_read, fd, (long)buffer, sizeof buffer, 0, 0, 0))) > 0;) put(buffer, got);
    return 0;
}
