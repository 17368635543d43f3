/* Random operation sequences on one folder, every result of which goes to a trace. Run twice by
 * tests/harness/differ.py, on a plain folder and, preloaded, on a managed one: the traces must be equal.
 * Never linked with the hooks. The same seed gives the same sequence.
 *
 * Usage: differ --files                                    (names and sizes of the folder's files)
 *        differ --weights                                  (the mix)
 *        differ FOLDER SCRATCH TRACE FIRST_SEED SEEDS OPS [ONLY]  (OPS per seed; ONLY names the one operation)
 *
 * Left out, since docs/SEMANTICS.md defines another result on a managed folder than on a local one:
 *   - changing a file: O_WRONLY, O_TRUNC, fopen "w" "a" "r+", truncate, writes through an O_RDWR
 *     descriptor and writable shared maps of one (EROFS or EACCES), unlink, rename, access(W_OK);
 *   - a FILE made by fdopen on a descriptor whose offset others share: the stream has an offset of its own;
 *   - seeking a FILE beyond the largest offset of the folder's file system (the memory behind it has another);
 *   - O_DIRECT's alignment rules, RWF_NOWAIT and mincore (what is in the page cache), io_uring (a bypass).
 * Compared as a sum instead of call by call: how many bytes one splice moves, and which of several
 * threads or processes that read one open file at once gets which piece.
 * Not compared: st_dev, st_ino (but for equality of descriptor and name), st_blocks, st_blksize, atime, ctime. */
#include "differ.h"
#include "reads.h"
#include "maps.h"
#include "copies.h"
#include "procs.h"
#include "streams.h"

static const struct op { const char *name, *class; int weight; void (*run)(void); } ops[] = {
    {"open", "open", 80, op_open}, {"close", "open", 30, op_close}, {"read", "read", 100, op_read},
    {"short", "short reads", 65, op_short}, {"pread", "read", 80, op_pread}, {"readv", "read", 35, op_readv},
    {"preadv", "read", 40, op_preadv}, {"iov", "bad buffers", 15, op_iov}, {"fault", "bad buffers", 35, op_fault},
    {"lseek", "lseek", 50, op_lseek}, {"fstat", "stat", 25, op_fstat}, {"stat", "stat", 30, op_stat},
    {"statx", "stat", 20, op_statx}, {"dup", "dup", 60, op_dup}, {"write", "write", 10, op_write},
    {"fcntl", "fcntl", 15, op_fcntl}, {"advise", "advice", 12, op_advise}, {"mmap", "mmap", 30, op_mmap},
    {"map_use", "mmap", 60, op_map_use}, {"map_fork", "fork", 6, op_map_fork}, {"fork", "fork", 24, op_fork},
    {"fork_race", "fork", 10, op_fork_race}, {"rights", "fork", 10, op_rights}, {"stream_fork", "fork", 4, op_stream_fork},
    {"threads", "threads", 50, op_threads}, {"end_race", "threads", 4, op_end_race}, {"spawn", "exec", 2, op_spawn}, {"vfork", "exec", 2, op_vfork},
    {"sendfile", "copy", 14, op_sendfile}, {"copy_range", "copy", 14, op_copy_range}, {"splice", "copy", 12, op_splice},
    {"aio", "aio", 8, op_aio}, {"reopen", "names", 15, op_reopen}, {"readlink", "names", 14, op_readlink}, {"list", "names", 5, op_list},
    {"fopen", "stdio", 10, op_fopen}, {"fdopen", "stdio", 7, op_fdopen}, {"freopen", "stdio", 4, op_freopen},
    {"stream", "stdio", 50, op_stream},
};
#define OPS (sizeof ops / sizeof *ops)
static long done[OPS];
static const char *only;

static const struct op *any_op(void) {
    for (size_t i = 0; only && i < OPS; i++) if (!strcmp(ops[i].name, only)) { done[i]++; return &ops[i]; }
    long sum = 0, at;
    for (size_t i = 0; i < OPS; i++) sum += ops[i].weight;
    at = below(sum);
    for (size_t i = 0;; i++) if ((at -= ops[i].weight) < 0) { done[i]++; return &ops[i]; }
}

static void start_seed(void) {
    for (int i = 0; i < FDS; i++) { if (fds[i].fd >= 0) close(fds[i].fd); fds[i].fd = -1; }
    for (int i = 0; i < MAPS; i++) if (maps[i].at) drop_map(i);
    for (int i = 0; i < STREAMS; i++) if (streams[i].stream) { fclose(streams[i].stream); streams[i].stream = NULL; }
}

/* Where this program's own descriptors lie: behind those of the operations, before the library's. */
#define OWN_FD 500

static int high(int fd) {
    int moved = fcntl(fd, F_DUPFD_CLOEXEC, OWN_FD);
    close(fd);
    return moved;
}

static int trace_fd;

static void prepare(const char *trace_path) {
    char path[2 * PATH_MAX], to[2 * PATH_MAX];
    trace_max = 64 * MIB;
    int fd = trace_fd = high(open(trace_path, O_RDWR | O_CREAT | O_TRUNC, 0600));
    if (fd < 0 || ftruncate(fd, (off_t)trace_max)) { perror(trace_path); exit(2); }
    trace = mmap(NULL, trace_max, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    pool = mmap(NULL, POOL + GUARD, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    shared = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (trace == MAP_FAILED || pool == MAP_FAILED || shared == MAP_FAILED) { perror("mmap"); exit(2); }
    mprotect(POOL_END, GUARD, PROT_NONE);
    if (chdir(folder)) { perror(folder); exit(2); }
    folder_fd = high(open(".", O_RDONLY | O_DIRECTORY));
    for (int i = 0; i < FILES; i++) {
        snprintf(path, sizeof path, "%s/link%d", scratch, i);
        snprintf(to, sizeof to, "%s/%s", folder, files[i].name);
        if (symlink(to, path)) perror(path);
    }
    snprintf(path, sizeof path, "%s/tree", scratch);
    if (symlink(folder, path)) perror(path);
    for (int i = 0; i < FDS; i++) fds[i].fd = -1;
    struct sigaction action = {.sa_handler = on_fault, .sa_flags = SA_NODEFER};
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    signal(SIGPIPE, SIG_IGN);
}

static double now(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static int print_tables(const char *which) {
    long sum = 0;
    for (size_t i = 0; i < OPS; i++) sum += ops[i].weight;
    if (!strcmp(which, "--files")) for (int i = 0; i < FILES; i++) printf("%s %ld\n", files[i].name, files[i].size);
    else if (!strcmp(which, "--weights")) for (size_t i = 0; i < OPS; i++) printf("%s %s %.4f\n", ops[i].name, ops[i].class, (double)ops[i].weight / (double)sum);
    else return 2;
    return 0;
}

int main(int argc, char **argv) {
    if (argc == 2) return print_tables(argv[1]);
    if (argc < 7 || argc > 8 || !realpath(argv[1], folder) || !realpath(argv[2], scratch)) {
        fprintf(stderr, "usage: %s FOLDER SCRATCH TRACE FIRST_SEED SEEDS OPS [ONLY]\n", argv[0]);
        return 2;
    }
    only = argc == 8 ? argv[7] : NULL;
    long first = atol(argv[4]), seeds = atol(argv[5]), count = atol(argv[6]);
    prepare(argv[3]);
    double begin = now(CLOCK_MONOTONIC);
    for (long seed = first; seed < first + seeds; seed++) {
        state = (uint64_t)seed * 0x2545f4914f6cdd1dULL;
        start_seed();
        for (long n = 0; n < count; n++) {
            const struct op *op = any_op();
            say("%ld %ld %s", seed, n, op->name);
            op->run();
            say("\n");
            /* Who knows when the last byte was loaded can tell which operations came before it. */
            if (n % 50 == 49) fprintf(stderr, "%.3f %ld\n", now(CLOCK_REALTIME), (seed - first) * count + n + 1);
        }
    }
    start_seed();
    if (ftruncate(trace_fd, (off_t)trace_len)) perror("trace");
    printf("%ld %.3f\n", seeds * count, now(CLOCK_MONOTONIC) - begin);
    for (size_t i = 0; i < OPS; i++) printf("%s %ld\n", ops[i].name, done[i]);
    char path[PATH_MAX + 8];
    for (int i = 0; i < FILES; i++) { snprintf(path, sizeof path, "%s/link%d", scratch, i); unlink(path); }
    return 0;
}
