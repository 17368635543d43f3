/* Programs that a preloaded library often breaks: handlers, cancellation, small stacks, daemons, no
 * descriptors left, no environment, calls before main and after it. See cases.h. */
#include "cases.h"
#include <dirent.h>
#include <ftw.h>
#include <glob.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <linux/capability.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/time.h>

extern char **environ;

/* Runs before main, with what main will get. */
static long early_bytes = -9;
static uint64_t early_hash;
static struct stat early_status;
__attribute__((constructor)) static void early(int argc, char **argv) {
    if (argc != 4) return;
    int fd = open(argv[2], O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    fstat(fd, &early_status);
    early_bytes = read(fd, buffer, 100000);
    if (early_bytes > 0) early_hash = fold(FOLD_START, buffer, (size_t)early_bytes);
    close(fd);
}

static const char *late_file;
static void late(void) {
    int fd = open(late_file, O_RDONLY);
    report_bytes("after main", pread(fd, buffer, 70000, 9), buffer);
    struct stat status;
    report("stat", stat("nested/deep/c.bin", &status));
    printf("%lld\n", (long long)status.st_size);
    FILE *stream = fopen(late_file, "r");
    report_bytes("stream", (long)fread(buffer, 1, 1000, stream), buffer);
}

static void c_constructor(const char *file, const char *scratch) {
    (void)scratch;
    printf("before main: %ld of %lld %016llx\n", early_bytes, (long long)early_status.st_size, (unsigned long long)early_hash);
    late_file = file;
    atexit(late);
    on_exit((void (*)(int, void *))late, NULL);
}

static sigjmp_buf back;
static volatile sig_atomic_t signals_seen[65];
static void on_signal(int number) { signals_seen[number]++; siglongjmp(back, 1); }

/* The program's own handlers stay its own, also beyond the end of a map. */
static void c_handlers(const char *file, const char *scratch) {
    (void)scratch;
    struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_NODEFER}, found;
    int fd = must_open(file, O_RDONLY);
    long size = lseek(fd, 0, SEEK_END), pages = (size + 4095) / 4096 * 4096;
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGSEGV, &action, NULL);
    volatile unsigned char *data = mmap(NULL, (size_t)pages + 4096, PROT_READ, MAP_PRIVATE, fd, 0);
    if (!sigsetjmp(back, 1)) printf("beyond %d\n", data[pages]);
    if (!sigsetjmp(back, 1)) *(volatile char *)data = 1;
    if (!sigsetjmp(back, 1)) printf("null %d\n", *(volatile char *)8);
    printf("SIGBUS %d SIGSEGV %d\n", signals_seen[SIGBUS], signals_seen[SIGSEGV]);
    report_bytes("all", size, (const void *)data);
    report("bad buffer", pread(fd, (void *)8, 1 << 20, 0));
    for (int number = 1; number < 32; number++)
        if (!sigaction(number, NULL, &found) && found.sa_handler != SIG_DFL) printf("handled %d\n", number);
    sigset_t blocked;
    pthread_sigmask(SIG_SETMASK, NULL, &blocked);
    for (int number = 1; number < 65; number++) if (sigismember(&blocked, number) == 1) printf("blocked %d\n", number);
}

static void c_clearenv(const char *file, const char *scratch) {
    (void)scratch;
    clearenv();
    environ = NULL;
    int fd = must_open(file, O_RDONLY), status;
    report_bytes("read", read(fd, buffer, 100000), buffer);
    fd = must_open("nested/deep/c.bin", O_RDONLY);
    report_bytes("lazily", read(fd, buffer, 100000), buffer);
    FILE *stream = fopen(file, "r");
    report_bytes("stream", (long)fread(buffer, 1, 100000, stream), buffer);
    fflush(stdout);
    if (fork() == 0) { report_bytes("child", pread(fd, buffer, 5000, 70), buffer); _exit(0); }
    wait(&status);
}

static int held_fd;
static void *reads_for_ever(void *unused) {
    static unsigned char own[100000];
    for (;;) if (pread(held_fd, own, sizeof own, 5) < 1) break;
    return unused;
}
static void *waits_in_read(void *ends) {
    char byte;
    return (void *)(long)read(((int *)ends)[0], &byte, 1);
}
static void *never_cancelled(void *unused) {
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    static unsigned char own[100000];
    for (int i = 0; i < 20; i++) if (pread(held_fd, own, sizeof own, i) < 1) return unused;
    return (void *)20L;
}
static void *walks(void *unused) {
    int state;
    struct dirent **names;
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
    usleep(20000);
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state);
    return scandir(".", &names, NULL, NULL) > 0 ? (void *)1L : unused;
}

/* read, pread and open are cancellation points, scandir is none; what a thread held must not stay locked. */
static void c_cancel(const char *file, const char *scratch) {
    (void)scratch;
    pthread_t thread;
    void *left;
    int ends[2];
    held_fd = must_open(file, O_RDONLY);
    if (pipe(ends)) exit(3);
    pthread_create(&thread, NULL, waits_in_read, ends);
    usleep(20000);
    report("cancel", pthread_cancel(thread));
    pthread_join(thread, &left);
    printf("a read of a pipe was cancelled %d\n", left == PTHREAD_CANCELED);
    for (int i = 0; i < 5; i++) {
        pthread_create(&thread, NULL, reads_for_ever, NULL);
        usleep(3000);
        pthread_cancel(thread);
        pthread_join(thread, &left);
        printf("a reader was cancelled %d\n", left == PTHREAD_CANCELED);
    }
    pthread_create(&thread, NULL, never_cancelled, NULL);
    pthread_cancel(thread);
    pthread_join(thread, &left);
    printf("one that may not be %ld\n", (long)left);
    pthread_create(&thread, NULL, walks, NULL);
    pthread_cancel(thread);
    pthread_join(thread, &left);
    printf("one that lists a folder %ld\n", (long)left);
    report_bytes("read", read(held_fd, buffer, 100000), buffer);
}

static const char *stack_file;
static int count_walked(const char *path, const struct stat *status, int kind, struct FTW *level) {
    (void)path, (void)status, (void)kind, (void)level;
    return 0;
}
/* Every family on a stack of 64 KiB, of which the C library needs a part itself. */
static void *on_small_stack(void *unused) {
    char *room = malloc(70000), *resolved = malloc(PATH_MAX);
    struct stat status;
    int fd = open(stack_file, O_RDONLY);
    report_bytes("read", read(fd, room, 70000), room);
    report_bytes("pread", pread(fd, room, 70000, 4097), room);
    report("fstat", fstat(fd, &status));
    report("stat", stat("nested/deep/c.bin", &status));
    report("absent", open("nested/deep/absent", O_RDONLY));
    report("write", write(fd, "x", 1));
    FILE *stream = fopen(stack_file, "r");
    report_bytes("stream", (long)fread(room, 1, 5000, stream), room);
    fclose(stream);
    char *data = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE, fd, 4096);
    report_bytes("map", 8192, data);
    report("munmap", munmap(data, 8192));
    printf("%s\n", realpath(stack_file, resolved));
    report("readlink", readlink("/proc/self/fd/0", resolved, PATH_MAX) > 0 ? 0 : -1);
    glob_t found;
    report("glob", glob("nested/*/*.bin", 0, NULL, &found));
    globfree(&found);
    report("nftw", nftw("nested", count_walked, 4, 0));
    DIR *folder = opendir("nested/deep");
    report("readdir", readdir(folder) ? 0 : -1);
    closedir(folder);
    int null = open("/dev/null", O_WRONLY);
    report("sendfile", sendfile(null, fd, NULL, 1000));
    close(null);
    close(fd);
    free(room);
    free(resolved);
    return unused;
}

static void c_stacks(const char *file, const char *scratch) {
    (void)scratch;
    pthread_attr_t attributes;
    pthread_t thread;
    stack_file = file;
    pthread_attr_init(&attributes);
    report("64 KiB", pthread_attr_setstacksize(&attributes, 64 << 10));
    for (int i = 0; i < 3; i++) {
        int made = pthread_create(&thread, &attributes, on_small_stack, NULL);
        pthread_join(thread, NULL);
        /* After the thread's own lines, which come in any order with what is said while it runs. */
        report("thread", made);
    }
}

/* The classic daemon: two forks, a session of its own, all descriptors closed, another folder. */
static void c_daemon(const char *file, const char *scratch) {
    char here[PATH_MAX], path[PATH_MAX * 2], out[PATH_MAX];
    if (!getcwd(here, sizeof here)) exit(3);
    snprintf(path, sizeof path, "%s/%s", here, file);
    snprintf(out, sizeof out, "%s/daemon", scratch);
    int fd = must_open(file, O_RDONLY), status, ends[2];
    report_bytes("before", read(fd, buffer, 1000), buffer);
    if (pipe(ends)) exit(3);
    if (fork() == 0) {
        setsid();
        if (fork() != 0) _exit(0);
        dup2(ends[1], 300);
        if (chdir("/")) _exit(3);
        umask(0);
        for (int i = 0; i < 300; i++) close(i);
        close_range(301, ~0U, 0);
        int null = open("/dev/null", O_RDWR);
        dup(null);
        freopen(out, "w", stdout);
        fd = must_open(path, O_RDONLY);
        report("number", fd);
        report_bytes("daemon", read(fd, buffer, 100000), buffer);
        FILE *stream = fopen(path, "r");
        report_bytes("stream", (long)fread(buffer, 1, 100000, stream), buffer);
        fclose(stdout);
        write(300, "done", 4);
        _exit(0);
    }
    close(ends[1]);
    wait(&status);
    report("done", read(ends[0], buffer, 10));
    FILE *stream = fopen(out, "r");
    for (int c; (c = fgetc(stream)) != EOF;) putchar(c);
}

/* As few descriptors as can be, then none. */
static void c_limits(const char *file, const char *scratch) {
    (void)scratch;
    struct rlimit limit = {12, 12};
    report("setrlimit", setrlimit(RLIMIT_NOFILE, &limit));
    int fd = must_open(file, O_RDONLY), last = fd, next;
    report_bytes("read", read(fd, buffer, 100000), buffer);
    while ((next = open(file, O_RDONLY)) >= 0) last = next;
    report("no number left", -1);
    printf("last %d\n", last);
    report_bytes("pread with none left", pread(fd, buffer, 100000, 9), buffer);
    report("seek", lseek(last, -10, SEEK_END));
    report_bytes("read with none left", read(last, buffer, 100), buffer);
    report("fopen", fopen(file, "r") ? 0 : -1);
    struct stat status;
    report("stat", stat("nested/deep/c.bin", &status));
    close(last);
    unsigned char *data = mmap(NULL, 8192, PROT_READ, MAP_PRIVATE, fd, 0);
    report_bytes("map with one left", 8192, data);
}

static long locked_kib(void) {
    char line[200];
    long kib = -1;
    FILE *stream = fopen("/proc/self/status", "r");
    while (stream && fgets(line, sizeof line, stream)) sscanf(line, "VmLck: %ld", &kib);
    if (stream) fclose(stream);
    return kib;
}

/* Without room to map a whole file, by the address space or by what may be locked. */
static void c_memory(const char *file, const char *scratch) {
    char path[PATH_MAX];
    long pages = 0;
    int fd = must_open(file, O_RDONLY);
    report_bytes("read", read(fd, buffer, 100), buffer);
    snprintf(path, sizeof path, "%s/copy", scratch);
    int out = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
    FILE *stream = fopen("/proc/self/statm", "r");
    if (!stream || fscanf(stream, "%ld", &pages) != 1) exit(3);
    fclose(stream);

    struct rlimit before, limit = {1 << 20, RLIM_INFINITY};
    getrlimit(RLIMIT_MEMLOCK, &before);
    limit.rlim_max = before.rlim_max;
    setrlimit(RLIMIT_MEMLOCK, &limit);
    /* Who may lock without a limit may no more. */
    struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
    struct __user_cap_data_struct held[2];
    if (syscall(SYS_capget, &header, held)) exit(3);
    held[0].effective &= ~(1U << CAP_IPC_LOCK);
    syscall(SYS_capset, &header, held);
    report("mlockall", mlockall(MCL_FUTURE));
    report_bytes("read", read(fd, buffer, 100000), buffer);
    report_bytes("pread", pread(fd, buffer, 100000, 77), buffer);
    report("munlockall", munlockall());

    getrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = (rlim_t)pages * 4096 + (5 << 19);
    report("setrlimit", setrlimit(RLIMIT_AS, &limit));
    report_bytes("read", read(fd, buffer, 100000), buffer);
    long got, copied = lseek(fd, 5001, SEEK_SET) * 0;
    while ((got = copy_file_range(fd, NULL, out, NULL, 1 << 20, 0)) > 0) copied += got;
    report("copy_file_range", got);
    report("copied", copied);
    for (lseek(out, 0, SEEK_SET); (got = read(out, buffer, sizeof buffer)) > 0;) report_bytes("copy", got, buffer);
    off_t at = 3, to = 9;
    report("copy_file_range", copy_file_range(fd, &at, out, &to, 5000, 0));
    report("at", at);
    report("to", to);
    report_bytes("copy", pread(out, buffer, 6000, 0), buffer);

    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_AS, &limit);
    limit.rlim_cur = limit.rlim_max = before.rlim_max;
    setrlimit(RLIMIT_MEMLOCK, &limit);
    report("mlockall", mlockall(MCL_FUTURE));
    long kib = locked_kib();
    report_bytes("read", pread(fd, buffer, 100000, 78), buffer);
    printf("locked by a read: %d\n", locked_kib() - kib > 1024);
}

static sigjmp_buf outside;
static int inside = -1;
static void on_alarm(int number) { (void)number; siglongjmp(outside, 1); }
static void on_alarm_read(int number) { (void)number; char byte; if (pread(inside, &byte, 1, 0) != 1) _exit(9); }

/* Handlers that jump out of a read, and that read themselves, at many moments of the first use of a file. */
static void c_jumps(const char *file, const char *scratch) {
    (void)scratch;
    inside = must_open(file, O_RDONLY);
    for (int reads = 0; reads < 2; reads++) {
        for (volatile int turn = 0; turn < 40; turn++) {
            pid_t child = fork();
            if (child == 0) {
                /* A child has to register anew. */
                signal(SIGALRM, reads ? on_alarm_read : on_alarm);
                if (reads || !sigsetjmp(outside, 1)) {
                    ualarm(100 + turn * 150, 0);
                    int fd = open(file, O_RDONLY);
                    if (read(fd, buffer, 100000) < 0) _exit(8);
                }
                ualarm(0, 0);
                _exit(pread(inside, buffer, 5000, 7) == 5000 ? 0 : 7);
            }
            int status = 0;
            waitpid(child, &status, 0);
            if (status) report("child", status);
        }
    }
    int fd = must_open(file, O_RDONLY);
    report_bytes("read", pread(fd, buffer, 100000, 5), buffer);
}

/* Zero, one and two are somebody else's, or nobody's. */
static void c_closed(const char *file, const char *scratch) {
    (void)scratch;
    int out = fcntl(1, F_DUPFD, 40), status;
    for (int i = 0; i < 40; i++) close(i);
    int fd = open(file, O_RDONLY);
    long first = fd;
    FILE *stream = fopen(file, "r");
    long second = fileno(stream);
    long got = (long)fread(buffer, 1, 100000, stream);
    fclose(stream);
    for (int i = 0; i < 3; i++) dup2(out, i);
    printf("numbers %ld %ld read %ld %016llx\n", first, second, got, (unsigned long long)fold(FOLD_START, buffer, (size_t)got));
    fflush(stdout);
    if (fork() == 0) { fd = open(file, O_RDONLY); report_bytes("child", read(fd, buffer, 5000), buffer); _exit(0); }
    wait(&status);
}

static void spawned(const char *what, char **argv, posix_spawn_file_actions_t *actions, char **environment) {
    pid_t child;
    int status, error = posix_spawnp(&child, argv[0], actions, NULL, argv, environment);
    if (error) { printf("%s: %s\n", what, strerror(error)); return; }
    waitpid(child, &status, 0);
    printf("%s: status %d\n", what, WEXITSTATUS(status));
    fflush(stdout);
}

static void c_spawn(const char *file, const char *scratch) {
    (void)scratch;
    posix_spawn_file_actions_t actions;
    char *by_name[] = {"sha256sum", (char *)file, NULL}, *by_stdin[] = {"sha256sum", NULL};
    int fd = must_open(file, O_RDONLY), status;
    fflush(stdout);
    spawned("by name", by_name, NULL, environ);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, file, O_RDONLY, 0);
    spawned("opened by the child", by_stdin, &actions, environ);
    posix_spawn_file_actions_init(&actions);
    lseek(fd, 4097, SEEK_SET);
    posix_spawn_file_actions_adddup2(&actions, fd, 0);
    spawned("inherited", by_stdin, &actions, environ);
    if (vfork() == 0) { dup2(fd, 0); execlp("head", "head", "-c", "0", NULL); _exit(9); }
    wait(&status);
    report("vfork", status);
    report_bytes("parent", pread(fd, buffer, 5000, 1), buffer);
    FILE *pipe = popen("cat nested/deep/c.bin", "r");
    report_bytes("popen", (long)fread(buffer, 1, sizeof buffer, pipe), buffer);
    report("pclose", pclose(pipe) == 0 || 1);
    report("system", system("test -s nested/deep/c.bin"));
}

static void *forks(void *unused) {
    int status = 0;
    if (fork() == 0) _exit(pread(held_fd, (char[9000]){0}, 9000, 77) == 9000 ? 0 : 1);
    wait(&status);
    return status ? "bad" : unused;
}

/* fork while other threads read. */
static void c_forks(const char *file, const char *scratch) {
    (void)scratch;
    pthread_t readers[3], thread;
    long bad = 0;
    held_fd = must_open(file, O_RDONLY);
    if (lseek(held_fd, 0, SEEK_END) < 9077) { printf("too small\n"); return; }
    for (int i = 0; i < 3; i++) pthread_create(&readers[i], NULL, reads_for_ever, NULL);
    for (int i = 0; i < 50; i++) {
        void *left;
        pthread_create(&thread, NULL, forks, NULL);
        pthread_join(thread, &left);
        bad += left != NULL;
    }
    for (int i = 0; i < 3; i++) { pthread_cancel(readers[i]); pthread_join(readers[i], NULL); }
    printf("bad children %ld\n", bad);
}

static volatile sig_atomic_t ticks, bad_ticks;
static void on_tick(int number) {
    (void)number;
    static unsigned char own[4096];
    struct stat status;
    int before = errno;
    /* read and fstat are async-signal-safe. */
    if (pread(held_fd, own, sizeof own, 3) == (ssize_t)sizeof own && fstat(held_fd, &status) == 0) ticks++;
    else bad_ticks++;
    errno = before;
}

/* A timer interrupts reads, and its handler reads too. */
static void c_signals(const char *file, const char *scratch) {
    (void)scratch;
    struct sigaction action = {.sa_handler = on_tick, .sa_flags = SA_RESTART};
    held_fd = must_open(file, O_RDONLY);
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &(struct itimerval){{0, 500}, {0, 500}}, NULL);
    uint64_t hash = FOLD_START;
    long total = 0;
    for (int round = 0; round < 20; round++) {
        lseek(held_fd, 0, SEEK_SET);
        for (long got; (got = read(held_fd, buffer, 99999)) > 0;) { total += got; if (!round) hash = fold(hash, buffer, (size_t)got); }
    }
    while (ticks + bad_ticks < 3) pause();
    setitimer(ITIMER_REAL, &(struct itimerval){0}, NULL);
    printf("%ld %016llx bad %d\n", total, (unsigned long long)hash, (int)bad_ticks);
    report("errno", (errno = 7, read(held_fd, buffer, 0)));
    printf("%d\n", errno);
}

/* How many bytes a stream gives, and their hash. */
static void report_stream(const char *what, FILE *stream) {
    uint64_t hash = FOLD_START;
    long total = 0;
    for (size_t got; (got = fread(buffer, 1, 4096, stream)) > 0; total += (long)got) hash = fold(hash, buffer, got);
    printf("%s %ld %016llx error %d\n", what, total, (unsigned long long)hash, ferror(stream) != 0);
}

/* The descriptor of a live stream becomes another file: standard input and others, in this process and in a child. */
static void c_under(const char *file, const char *scratch) {
    (void)scratch;
    int fd = must_open(file, O_RDONLY), status;
    dup2(fd, 0);
    report_stream("dup2 to 0", stdin);
    clearerr(stdin);
    lseek(fd, 5, SEEK_SET);
    dup3(fd, 0, 0);
    report_stream("dup3 to 0", stdin);
    clearerr(stdin);
    close(0);
    report("open gives", open(file, O_RDONLY));
    report_stream("close and open", stdin);
    FILE *stream = fopen("/dev/null", "r");
    dup2(must_open(file, O_RDONLY), fileno(stream));
    report_stream("dup2 under a stream", stream);
    int number = fileno(stream);
    clearerr(stream);
    close(number);
    for (int got; (got = must_open(file, O_RDONLY)) < number;) {}
    report_stream("close and open under a stream", stream);
    fclose(stream);
    stream = fdopen(dup(0), "r");
    clearerr(stream);
    fcntl(fd, F_DUPFD, 0);
    dup2(must_open(file, O_RDONLY), fileno(stream));
    report_stream("dup2 under fdopen", stream);
    fclose(stream);
    fflush(stdout);
    if (fork() == 0) {
        dup2(must_open(file, O_RDONLY), 0);
        clearerr(stdin);
        report_stream("child", stdin);
        fflush(stdout);
        _exit(0);
    }
    wait(&status);
    fflush(stdout);
    if (fork() == 0) {
        dup2(must_open(file, O_RDONLY), 0);
        execlp("cksum", "cksum", NULL);
    }
    wait(&status);
}

static const struct case_entry table[] = {
    {"constructor", c_constructor}, {"handlers", c_handlers}, {"clearenv", c_clearenv}, {"cancel", c_cancel},
    {"stacks", c_stacks}, {"daemon", c_daemon}, {"limits", c_limits}, {"memory", c_memory}, {"jumps", c_jumps}, {"closed", c_closed}, {"spawn", c_spawn},
    {"forks", c_forks}, {"signals", c_signals}, {"under", c_under}, {NULL, NULL},
};

int main(int argc, char **argv) { return run_case(table, argc, argv); }
