/* Reads one file with libc calls and writes its bytes to standard output. Built with -static, so that no
 * preloaded library can see these calls. Usage: reader_libc read|pread|stdio|sendfile|mmap FILE SIZE
 * Errors end it with status 1 and the errno; SIZE is what a program that knows the size would map. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

static char buffer[1 << 16];

static void fail(const char *what) {
    fprintf(stderr, "%s: errno %d, %s\n", what, errno, strerror(errno));
    exit(1);
}

static void put(const char *bytes, size_t count) {
    while (count > 0) {
        ssize_t done = write(1, bytes, count);
        if (done < 0) fail("write");
        bytes += done;
        count -= (size_t)done;
    }
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    const char *way = argv[1], *path = argv[2];
    size_t size = strtoul(argv[3], NULL, 10);
    if (strcmp(way, "stdio") == 0) {
        FILE *file = fopen(path, "rb");
        if (!file) fail("fopen");
        for (size_t got; (got = fread(buffer, 1, sizeof buffer, file)) > 0;) put(buffer, got);
        if (ferror(file)) fail("fread");
        return 0;
    }
    int fd = open(path, O_RDONLY);
    if (fd < 0) fail("open");
    ssize_t got = 0;
    if (strcmp(way, "read") == 0) {
        while ((got = read(fd, buffer, sizeof buffer)) > 0) put(buffer, (size_t)got);
    } else if (strcmp(way, "pread") == 0) {
        for (off_t at = 0; (got = pread(fd, buffer, sizeof buffer, at)) > 0; at += got) put(buffer, (size_t)got);
    } else if (strcmp(way, "sendfile") == 0) {
        while ((got = sendfile(1, fd, NULL, 1 << 20)) > 0) {}
    } else if (strcmp(way, "mmap") == 0) {
        const char *map = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (map == MAP_FAILED) fail("mmap");
        /* Touched here: a write() from a page beyond the end would be EFAULT, not SIGBUS. */
        for (size_t at = 0; at < size; at += sizeof buffer) {
            size_t step = size - at < sizeof buffer ? size - at : sizeof buffer;
            memcpy(buffer, map + at, step);
            put(buffer, step);
        }
    } else {
        return 2;
    }
    if (got < 0) fail(way);
    return 0;
}
