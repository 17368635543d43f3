// Reads a descriptor, or standard input, in one way, and says what came of it: of a file that was opened before it was
// there. Run by tests/e2e/test_semantics.py.
#define _GNU_SOURCE
#include <aio.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <unistd.h>

enum { FD = 9 };
static char bytes[4096];

static long queued(void) {
    struct aiocb block = {.aio_fildes = FD, .aio_buf = bytes, .aio_nbytes = sizeof bytes};
    if (aio_read(&block) != 0) return -1;
    while (aio_error(&block) == EINPROGRESS) usleep(1000);
    errno = aio_error(&block);
    return aio_return(&block);
}

static long streamed(FILE *stream) {
    if (stream == NULL) return -1;
    long got = (long)fread(bytes, 1, sizeof bytes, stream);
    return ferror(stream) ? -1 : got;
}

int main(int argc, char **argv) {
    long got = -2;
    const char *way = argc > 1 ? argv[1] : "";
    errno = 0;
    if (!strcmp(way, "read")) got = read(FD, bytes, sizeof bytes);
    if (!strcmp(way, "aio_read")) got = queued();
    if (!strcmp(way, "mmap")) got = mmap(NULL, sizeof bytes, PROT_READ, MAP_SHARED, FD, 0) == MAP_FAILED ? -1 : 0;
    if (!strcmp(way, "lseek")) got = lseek(FD, 0, SEEK_END);
    if (!strcmp(way, "sendfile")) got = sendfile(1, FD, NULL, sizeof bytes);
    if (!strcmp(way, "fdopen")) got = streamed(fdopen(FD, "r"));
    if (!strcmp(way, "stdin")) got = streamed(stdin);
    printf("%s %ld\n", way, got);
    return got < 0 ? 0 : 1;
}
