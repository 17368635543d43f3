/* A reader that asks the size of the C library and the bytes of the kernel, as loaders do: opens by libc, reads block
 * by block past it, writes what it got to standard output, and ends with 0 at the end of the file, wherever that is.
 * Usage: past_X WAY HOW FILE. WAY "... first": what reads is made ready before the open. HOW: plain, direct (O_DIRECT)
 * or rdwr (O_RDWR and O_DIRECT). WAY "... slow" ends a second later. Status 77: the machine has no such way. Each way is a `prepare` and a `get`. */
#ifndef BYPASS_PAST_H
#define BYPASS_PAST_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { BLOCK = 1 << 16, UNAVAILABLE = 77 };

static const char *way;
/* False when there is no such way here. */
static int prepare(void);
/* Bytes at an offset into a block-sized, aligned room; a negative errno. */
static long get(int fd, char *room, long at);

static int fail(const char *what, long result) {
    fprintf(stderr, "%s: errno %ld, %s\n", what, -result, strerror((int)-result));
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    way = argv[1];
    int flags = !strcmp(argv[2], "plain") ? O_RDONLY : !strcmp(argv[2], "direct") ? O_RDONLY | O_DIRECT : O_RDWR | O_DIRECT;
    int is_first = strstr(way, "first") != NULL;
    if (is_first && !prepare()) return UNAVAILABLE;
    int fd = open(argv[3], flags);
    if (fd < 0) return fail("open", -errno);
    if (!is_first && !prepare()) return UNAVAILABLE;
    struct stat status;
    void *room;
    if (fstat(fd, &status) || posix_memalign(&room, 4096, BLOCK)) return fail("fstat", -errno);
    for (long at = 0, got; at < status.st_size; at += got) {
        got = get(fd, room, at);
        if (got < 0) return fail("read", got);
        if (got == 0) break;
        if (write(1, room, (size_t)got) != got) return fail("write", -errno);
    }
    if (strstr(way, "slow")) sleep(1);
    return 0;
}
#endif
