/* Reads one file with libaio and writes its bytes to standard output. The open is libc's and hooked, the reads
 * are not. Usage: reader_aio pread|preadv FILE SIZE */
#define _GNU_SOURCE
#include <fcntl.h>
#include <libaio.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static char buffer[1 << 16];

static int fail(const char *what, long result) {
    fprintf(stderr, "%s: errno %ld, %s\n", what, -result, strerror((int)-result));
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    int vector = strcmp(argv[1], "preadv") == 0;
    int fd = open(argv[2], O_RDONLY);
    if (fd < 0) { perror("open"); return 1; }
    io_context_t context = 0;
    int status = io_setup(4, &context);
    if (status < 0) { fprintf(stderr, "no aio here\n"); return 77; }
    for (long long at = 0;;) {
        struct iocb request, *requests[] = {&request};
        struct iovec half[2] = {{buffer, sizeof buffer / 2}, {buffer + sizeof buffer / 2, sizeof buffer / 2}};
        if (vector) io_prep_preadv(&request, fd, half, 2, at);
        else io_prep_pread(&request, fd, buffer, sizeof buffer, at);
        if ((status = io_submit(context, 1, requests)) != 1) return fail("io_submit", status);
        struct io_event event;
        if ((status = io_getevents(context, 1, 1, &event, NULL)) != 1) return fail("io_getevents", status);
        long got = (long)event.res;
        if (got < 0) return fail("aio read", got);
        if (got == 0) return 0;
        for (long done = 0, step; done < got; done += step)
            if ((step = write(1, buffer + done, (size_t)(got - done))) < 0) { perror("write"); return 1; }
        at += got;
    }
}
