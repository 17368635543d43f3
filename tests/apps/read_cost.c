/* What one read of a file costs: called by the bars "engine 2" and "engine 7", natively, under callgrind and under the library.
 *
 * read_cost HOW COUNT PATH BLOCK
 *   next    COUNT times read(BLOCK) at the file's offset, which goes back to 0 before the end of the file
 *   end     COUNT times read(BLOCK) at the end of the file
 *   at      one pass that touches every block, then COUNT times pread(BLOCK), one block after the other
 *   copy    the same by memcpy from a map of the file: the least that a read can cost
 * Prints wall and CPU nanoseconds per call, and a sum of what was seen. Never writes anything. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static double now(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1e9 + t.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

int main(int argc, char **argv) {
    if (argc != 5) {
        fprintf(stderr, "read_cost next|end|at|copy COUNT PATH BLOCK\n");
        return 2;
    }
    const char *how = argv[1], *path = argv[3];
    long count = atol(argv[2]), block = atol(argv[4]);
    int fd = open(path, O_RDONLY);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) != 0) fail(path);
    char *buffer = malloc(block);
    memset(buffer, 1, block);
    uint64_t sum = 0;
    off_t last = st.st_size - block, at = 0;
    if (strcmp(how, "end") == 0) {
        lseek(fd, 0, SEEK_END);
    }
    const char *map = NULL;
    if (how[0] == 'c') {
        map = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
        if (map == MAP_FAILED) fail("mmap");
        for (off_t place = 0; place < st.st_size; place += 4096) sum += (unsigned char)map[place];
    }
    if (strcmp(how, "at") == 0) {
        for (off_t place = 0; place <= last; place += block) {
            if (pread(fd, buffer, block, place) != block) fail("pread");
        }
    }
    double wall = now(CLOCK_MONOTONIC), cpu = now(CLOCK_PROCESS_CPUTIME_ID);
    for (long i = 0; i < count; i++) {
        ssize_t got;
        if (map) {
            memcpy(buffer, map + at, block);
            got = block;
        } else if (how[0] == 'a') {
            got = pread(fd, buffer, block, at);
        } else {
            got = read(fd, buffer, block);
        }
        if (got != (how[0] == 'e' ? 0 : block)) fail("read");
        sum += (unsigned char)buffer[0];
        at += block;
        if (at > last) {
            at = 0;
            if (how[0] == 'n') lseek(fd, 0, SEEK_SET);
        }
    }
    wall = now(CLOCK_MONOTONIC) - wall;
    cpu = now(CLOCK_PROCESS_CPUTIME_ID) - cpu;
    printf("%.2f %.2f %llu\n", wall / count, cpu / count, (unsigned long long)sum);
    return 0;
}
