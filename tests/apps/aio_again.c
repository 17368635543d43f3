// Reads pieces of a file by POSIX AIO with one control block, as loops do that change its offset only, and writes them
// to standard output. Run by tests/e2e/test_verdict.py.
#define _GNU_SOURCE
#include <aio.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIECE = 1 << 20 };

int main(int argc, char **argv) {
    static char bytes[PIECE];
    struct aiocb block = {.aio_fildes = open(argv[1], O_RDONLY), .aio_buf = bytes, .aio_nbytes = PIECE};
    for (int n = 2; n < argc; n++) {
        block.aio_offset = atoll(argv[n]);
        if (aio_read(&block) != 0) {
            perror("aio_read");
            return 1;
        }
        const struct aiocb *list[] = {&block};
        while (aio_error(&block) == EINPROGRESS) {
            aio_suspend(list, 1, NULL);
        }
        ssize_t got = aio_return(&block);
        if (got < 0 || fwrite(bytes, 1, (size_t)got, stdout) != (size_t)got) {
            perror("read");
            return 1;
        }
        memset(bytes, 0, sizeof bytes);
    }
    return fflush(stdout) == 0 ? 0 : 1;
}
