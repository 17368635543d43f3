/* Calls by number: `syscall` of the C library ("aio", "uring" as the io-uring crate of Rust makes them, "pread"), or
 * assembly ("asm aio", "asm uring", "asm pread", "asm map"). See past.h. */
#include "past.h"
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "asm.h"

static int is_asm;
static aio_context_t context;
static int ring;
static struct io_uring_params params;
static char *queue, *done;
static struct io_uring_sqe *entries;

static long call(long number, long a, long b, long c, long d, long e, long f) {
    if (is_asm) return raw(number, a, b, c, d, e, f);
    long got = syscall(number, a, b, c, d, e, f);
    return got < 0 ? -errno : got;
}

static int prepare(void) {
    is_asm = !strncmp(way, "asm", 3);
    if (strstr(way, "aio")) return call(SYS_io_setup, 4, (long)&context, 0, 0, 0, 0) == 0;
    if (!strstr(way, "uring")) return 1;
    ring = (int)call(SYS_io_uring_setup, 256, (long)&params, 0, 0, 0, 0);
    if (ring < 0) return 0;
    size_t bytes = params.sq_off.array + params.sq_entries * sizeof(unsigned);
    size_t done_bytes = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
    int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED | MAP_POPULATE;
    queue = mmap(NULL, bytes, prot, flags, ring, IORING_OFF_SQ_RING);
    done = mmap(NULL, done_bytes, prot, flags, ring, IORING_OFF_CQ_RING);
    entries = mmap(NULL, params.sq_entries * sizeof *entries, prot, flags, ring, IORING_OFF_SQES);
    return queue != MAP_FAILED && done != MAP_FAILED && (void *)entries != MAP_FAILED;
}

static long get_by_aio(int fd, char *room, long at) {
    struct iocb request = {.aio_fildes = (unsigned)fd, .aio_lio_opcode = IOCB_CMD_PREAD, .aio_nbytes = BLOCK};
    request.aio_buf = (unsigned long)room;
    request.aio_offset = at;
    struct iocb *requests[] = {&request};
    struct io_event event;
    long status = call(SYS_io_submit, (long)context, 1, (long)requests, 0, 0, 0);
    if (status == 1) status = call(SYS_io_getevents, (long)context, 1, 1, (long)&event, 0, 0);
    return status == 1 ? (long)event.res : status;
}

static long get_by_ring(int fd, char *room, long at) {
    unsigned *tail = (unsigned *)(queue + params.sq_off.tail), *head = (unsigned *)(done + params.cq_off.head);
    unsigned slot = *tail & (params.sq_entries - 1);
    entries[slot] = (struct io_uring_sqe){.opcode = IORING_OP_READ, .fd = fd, .off = (unsigned long)at, .len = BLOCK};
    entries[slot].addr = (unsigned long)room;
    ((unsigned *)(queue + params.sq_off.array))[slot] = slot;
    __atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
    long status = call(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, 0, 0);
    if (status < 0) return status;
    while (*head == __atomic_load_n((unsigned *)(done + params.cq_off.tail), __ATOMIC_ACQUIRE)) {}
    long got = ((struct io_uring_cqe *)(done + params.cq_off.cqes))[*head & (params.cq_entries - 1)].res;
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    return got;
}

static long get_by_map(int fd, char *room, long at) {
    char *map = (char *)raw(SYS_mmap, 0, BLOCK, PROT_READ, MAP_SHARED, fd, at);
    if ((long)map < 0 && (long)map > -4096) return (long)map;
    struct stat status;
    if (fstat(fd, &status)) return -errno;
    long count = status.st_size - at < BLOCK ? status.st_size - at : BLOCK;
    memcpy(room, map, (size_t)count);
    munmap(map, BLOCK);
    return count;
}

static long get(int fd, char *room, long at) {
    if (strstr(way, "aio")) return get_by_aio(fd, room, at);
    if (strstr(way, "uring")) return get_by_ring(fd, room, at);
    if (strstr(way, "map")) return get_by_map(fd, room, at);
    return call(SYS_pread64, fd, (long)room, BLOCK, at, 0, 0);
}
