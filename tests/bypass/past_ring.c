/* liburing, as a library or linked in. See past.h. */
#include "past.h"
#include <liburing.h>

static struct io_uring ring;

static int prepare(void) { return io_uring_queue_init(8, &ring, 0) == 0; }

static long get(int fd, char *room, long at) {
    struct io_uring_sqe *entry = io_uring_get_sqe(&ring);
    io_uring_prep_read(entry, fd, room, BLOCK, (unsigned long long)at);
    int status = io_uring_submit(&ring);
    struct io_uring_cqe *done;
    if (status >= 0) status = io_uring_wait_cqe(&ring, &done);
    if (status < 0) return status;
    long got = done->res;
    io_uring_cqe_seen(&ring, done);
    return got;
}
