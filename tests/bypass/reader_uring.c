/* Reads one file through io_uring and writes its bytes to standard output; the ring is set up and entered from
 * inline assembly, as a runtime without liburing does. Usage: reader_uring open|mixed FILE SIZE
 * `open` opens on the ring too, `mixed` with libc's open, which is hooked. Status 77: no io_uring here. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "asm.h"

static char buffer[1 << 16];
static struct io_uring_params params;
static long ring;
static char *submissions, *completions;
static struct io_uring_sqe *entries;

static long setup(void) {
    ring = raw(SYS_io_uring_setup, 4, (long)&params, 0, 0, 0, 0);
    if (ring < 0) return ring;
    size_t sq_bytes = params.sq_off.array + params.sq_entries * sizeof(unsigned);
    size_t cq_bytes = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
    int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
    submissions = mmap(NULL, sq_bytes, prot, flags, (int)ring, IORING_OFF_SQ_RING);
    completions = mmap(NULL, cq_bytes, prot, flags, (int)ring, IORING_OFF_CQ_RING);
    entries = mmap(NULL, params.sq_entries * sizeof *entries, prot, flags, (int)ring, IORING_OFF_SQES);
    int failed = submissions == MAP_FAILED || completions == MAP_FAILED || (void *)entries == MAP_FAILED;
    return failed ? -errno : 0;
}

/* Submits one entry and waits for its result. */
static long one(struct io_uring_sqe entry) {
    unsigned *tail = (unsigned *)(submissions + params.sq_off.tail);
    unsigned mask = *(unsigned *)(submissions + params.sq_off.ring_mask);
    unsigned slot = *tail & mask;
    entries[slot] = entry;
    ((unsigned *)(submissions + params.sq_off.array))[slot] = slot;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    long entered = raw(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, 0, 0);
    if (entered < 0) return entered;
    unsigned *head = (unsigned *)(completions + params.cq_off.head);
    unsigned cq_mask = *(unsigned *)(completions + params.cq_off.ring_mask);
    if (*head == __atomic_load_n((unsigned *)(completions + params.cq_off.tail), __ATOMIC_ACQUIRE)) return -EAGAIN;
    struct io_uring_cqe *done = (struct io_uring_cqe *)(completions + params.cq_off.cqes) + (*head & cq_mask);
    long result = done->res;
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    return result;
}

static int fail(const char *what, long result) {
    fprintf(stderr, "%s: errno %ld, %s\n", what, -result, strerror((int)-result));
    return 1;
}

int main(int argc, char **argv) {
    if (argc != 4) return 2;
    long status = setup();
    if (status < 0) { fail("io_uring_setup", status); return 77; }
    long fd;
    if (strcmp(argv[1], "open") == 0) {
        struct io_uring_sqe entry = {.opcode = IORING_OP_OPENAT, .fd = AT_FDCWD, .addr = (unsigned long)argv[2]};
        entry.open_flags = O_RDONLY;
        fd = one(entry);
    } else {
        fd = open(argv[2], O_RDONLY);
    }
    if (fd < 0) return fail("open", fd);
    for (unsigned long at = 0;;) {
        struct io_uring_sqe entry = {.opcode = IORING_OP_READ, .fd = (int)fd, .off = at, .addr = (unsigned long)buffer};
        entry.len = sizeof buffer;
        long got = one(entry);
        if (got < 0) return fail("ring read", got);
        if (got == 0) return 0;
        for (long done = 0, step; done < got; done += step)
            if ((step = write(1, buffer + done, (size_t)(got - done))) < 0) { perror("write"); return 1; }
        at += (unsigned long)got;
    }
}
