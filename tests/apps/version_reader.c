/* Reads files whose bytes say object, version and place, and tells on the fly when two versions meet in one file.
 *
 * Every 8 bytes of a file (tests/harness/blocks.py) are one little-endian number: object << 56 | version << 32 | index of
 * the word. What a reader was given first decides which object and version all the rest of that file has to be.
 *
 * Usage: version_reader [-b BYTES] [-p MICROSECONDS] [-t THREADS] [-r ROUNDS] [-d MILLISECONDS] [-w] WAY FILE...
 *   WAY: read, pread (by THREADS threads), map, hold (a map that is looked at again at the end), window (maps of BYTES),
 *        stdio, sendfile, copy (copy_file_range)
 *   -b: bytes asked for at once (128 KiB); -p: pause after each piece; -d: pause after each file
 *   -r: so many rounds, each opens the files anew; -w: a further round for each line on standard input, until its end
 * Output, each line one write:
 *   open PID ROUND FILE SIZE                               the size that fstat gives
 *   got PID WAY ROUND FILE OBJECT VERSION BYTES SIZE       end of file after BYTES, all of one version (0 0: no byte)
 *   err PID WAY ROUND FILE OBJECT VERSION BYTES ERRNO      an error after BYTES of that version
 *   mix PID WAY ROUND FILE OFFSET WORD EXPECTED END        the program was given a wrong byte with success; END: the error
 *                                                          that the pass ended with, or the size
 *   end PID ROUND
 * Ends with 0 whenever it came to its end; what was read is for the caller to judge. Writes to nothing but its output. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

enum { THREADS_MAX = 16, HELD_MAX = 64 };

/* What one pass over one open file has seen. */
struct seen {
    _Atomic uint64_t first; /* its first word without the index; 0: nothing yet */
    _Atomic uint64_t bytes;
    _Atomic uint64_t bad_at, bad_word; /* where a word was another one; bad_at counts from 1 */
};

struct held {
    const char *file;
    unsigned char *map;
    size_t size;
    uint64_t first;
};

static size_t piece = 128 << 10;
static useconds_t pause_us, file_pause_us;
static int threads = 4, held_count;
static struct held held[HELD_MAX];
static sigjmp_buf bus;

static void say(const char *line)
{
    if (write(1, line, strlen(line)) < 0)
        _exit(3);
}

static void rest(useconds_t us)
{
    if (us)
        usleep(us);
}

static void on_bus(int number)
{
    (void)number;
    siglongjmp(bus, 1);
}

/* One word that may be cut off at the end of the file; `mask` says which of its bits are there. */
static void look_word(struct seen *seen, uint64_t word, uint64_t mask, uint64_t index)
{
    uint64_t first = seen->first, fresh = word - index;
    if (first == 0 && mask == ~0ull) {
        uint64_t none = 0;
        if ((fresh & 0xffffffffull) == 0 && fresh >> 56 != 0 && atomic_compare_exchange_strong(&seen->first, &none, fresh))
            return;
        first = seen->first;
    }
    if (((first + index) & mask) == (word & mask) && first != 0)
        return;
    uint64_t none = 0;
    if (atomic_compare_exchange_strong(&seen->bad_at, &none, index * 8 + 1))
        seen->bad_word = word;
}

/* `data` lies at `at` of the file; pieces begin at any byte. */
static void look(struct seen *seen, const unsigned char *data, size_t len, uint64_t at)
{
    size_t done = 0;
    while (done < len) {
        uint64_t place = at + done, skip = place % 8, word = 0, mask = ~0ull;
        size_t have = 8 - skip < len - done ? 8 - skip : len - done;
        memcpy((unsigned char *)&word + skip, data + done, have);
        if (have < 8) {
            mask = 0;
            memset((unsigned char *)&mask + skip, 0xff, have);
        }
        look_word(seen, word, mask, place / 8);
        done += have;
    }
    seen->bytes += len;
}

static int by_read(int fd, struct seen *seen)
{
    unsigned char *to = malloc(piece);
    ssize_t got;
    while ((got = read(fd, to, piece)) > 0) {
        look(seen, to, got, seen->bytes);
        rest(pause_us);
    }
    int error = got < 0 ? errno : 0;
    free(to);
    return error;
}

struct job {
    int fd, index, error;
    struct seen *seen;
};

static void *read_stripe(void *given)
{
    struct job *job = given;
    unsigned char *to = malloc(piece);
    for (uint64_t block = job->index;; block += threads) {
        uint64_t at = block * piece, end = at + piece;
        ssize_t got = 1;
        while (at < end && (got = pread(job->fd, to, end - at, at)) > 0) {
            look(job->seen, to, got, at);
            at += got;
        }
        if (got <= 0) {
            job->error = got < 0 ? errno : 0;
            break;
        }
        rest(pause_us);
    }
    free(to);
    return NULL;
}

static int by_pread(int fd, struct seen *seen)
{
    struct job jobs[THREADS_MAX];
    pthread_t ids[THREADS_MAX];
    int error = 0;
    for (int n = 0; n < threads; n++) {
        jobs[n] = (struct job){fd, n, 0, seen};
        if (pthread_create(&ids[n], NULL, read_stripe, &jobs[n]) != 0)
            _exit(4);
    }
    for (int n = 0; n < threads; n++) {
        pthread_join(ids[n], NULL);
        if (jobs[n].error)
            error = jobs[n].error;
    }
    return error;
}

/* Looks at a map; -1 where touching it raised SIGBUS. */
static int look_map(struct seen *seen, const unsigned char *map, size_t len, uint64_t at)
{
    if (sigsetjmp(bus, 1))
        return -1;
    look(seen, map, len, at);
    return 0;
}

static int by_map(const char *file, int fd, struct seen *seen, int keep)
{
    struct stat st;
    if (fstat(fd, &st) != 0)
        return errno;
    if (st.st_size == 0)
        return 0;
    unsigned char *map = mmap(NULL, st.st_size, PROT_READ, keep ? MAP_SHARED : MAP_PRIVATE, fd, 0);
    if (map == MAP_FAILED)
        return errno;
    int error = look_map(seen, map, st.st_size, 0);
    rest(pause_us);
    if (keep && held_count < HELD_MAX)
        held[held_count++] = (struct held){file, map, st.st_size, seen->first};
    else
        munmap(map, st.st_size);
    return error;
}

static int by_window(int fd, struct seen *seen)
{
    size_t step = (piece + 4095) / 4096 * 4096;
    struct stat st;
    if (fstat(fd, &st) != 0)
        return errno;
    for (off_t at = 0; at < st.st_size; at += step) {
        size_t len = (size_t)(st.st_size - at) < step ? (size_t)(st.st_size - at) : step;
        unsigned char *map = mmap(NULL, len, PROT_READ, MAP_PRIVATE, fd, at);
        if (map == MAP_FAILED)
            return errno;
        int error = look_map(seen, map, len, at);
        munmap(map, len);
        if (error)
            return error;
        rest(pause_us);
    }
    return 0;
}

/* The stream opens the file anew, so that its size is what counts. */
static int by_stdio(const char *path, struct seen *seen, off_t *size)
{
    struct stat st;
    FILE *stream = fopen(path, "rb");
    if (!stream)
        return errno;
    if (fstat(fileno(stream), &st) == 0)
        *size = st.st_size;
    unsigned char *to = malloc(piece);
    size_t got;
    while ((got = fread(to, 1, piece, stream)) > 0) {
        look(seen, to, got, seen->bytes);
        rest(pause_us);
    }
    int error = ferror(stream) ? errno : 0;
    free(to);
    fclose(stream);
    return error;
}

/* Copies inside the kernel into a file of this program's own, and looks at that. */
static int by_copy(int fd, struct seen *seen, int whole)
{
    int to = whole ? open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600) : memfd_create("copy", MFD_CLOEXEC);
    unsigned char *data = malloc(piece);
    ssize_t got;
    int error = 0;
    while ((got = whole ? copy_file_range(fd, NULL, to, NULL, piece, 0) : sendfile(to, fd, NULL, piece)) > 0) {
        uint64_t at = seen->bytes;
        for (ssize_t done = 0, n; done < got; done += n) {
            n = pread(to, data, got - done, at + done);
            if (n <= 0)
                _exit(5);
            look(seen, data, n, at + done);
        }
        rest(pause_us);
    }
    if (got < 0)
        error = errno;
    free(data);
    close(to);
    return error;
}

static int one(const char *way, const char *path, struct seen *seen, off_t *size, int number)
{
    char line[4200];
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC), error;
    if (fd < 0)
        return errno;
    if (fstat(fd, &st) != 0) {
        error = errno;
        close(fd);
        return error;
    }
    *size = st.st_size;
    snprintf(line, sizeof line, "open %d %d %s %lld\n", getpid(), number, path, (long long)st.st_size);
    say(line);
    if (strcmp(way, "read") == 0)
        error = by_read(fd, seen);
    else if (strcmp(way, "pread") == 0)
        error = by_pread(fd, seen);
    else if (strcmp(way, "map") == 0 || strcmp(way, "hold") == 0)
        error = by_map(path, fd, seen, way[0] == 'h');
    else if (strcmp(way, "window") == 0)
        error = by_window(fd, seen);
    else if (strcmp(way, "stdio") == 0)
        error = by_stdio(path, seen, size);
    else if (strcmp(way, "sendfile") == 0 || strcmp(way, "copy") == 0)
        error = by_copy(fd, seen, way[0] == 'c');
    else
        _exit(2);
    close(fd);
    return error;
}

static void tell(const char *way, int number, const char *path, struct seen *seen, int error, off_t size)
{
    char line[4300], what[32];
    if (error)
        snprintf(what, sizeof what, "%s", error < 0 ? "SIGBUS" : strerrorname_np(error));
    else
        snprintf(what, sizeof what, "%lld", (long long)size);
    if (seen->bad_at) {
        uint64_t at = seen->bad_at - 1;
        snprintf(line, sizeof line, "mix %d %s %d %s %llu %016llx %016llx %s\n", getpid(), way, number, path,
                 (unsigned long long)at, (unsigned long long)seen->bad_word,
                 (unsigned long long)(seen->first ? seen->first + at / 8 : 0), what);
        say(line);
        return;
    }
    snprintf(line, sizeof line, "%s %d %s %d %s %d %d %llu %s\n", error ? "err" : "got", getpid(), way, number, path,
             (int)(seen->first >> 56), (int)(seen->first >> 32 & 0xffffff), (unsigned long long)seen->bytes, what);
    say(line);
}

/* Every map that was kept is looked at once more: it has to be what it was. */
static void look_again(int number)
{
    for (int n = 0; n < held_count; n++) {
        struct seen seen = {0};
        seen.first = held[n].first;
        int error = look_map(&seen, held[n].map, held[n].size, 0);
        tell("held", number, held[n].file, &seen, error, held[n].size);
        munmap(held[n].map, held[n].size);
    }
    held_count = 0;
}

static void round_of(const char *way, int number, char **files)
{
    char line[64];
    for (; *files; files++) {
        struct seen seen = {0};
        off_t size = 0;
        int error = one(way, *files, &seen, &size, number);
        tell(way, number, *files, &seen, error, size);
        rest(file_pause_us);
    }
    look_again(number);
    snprintf(line, sizeof line, "end %d %d\n", getpid(), number);
    say(line);
}

int main(int argc, char **argv)
{
    int option, rounds = 1, again = 0, number = 1;
    char line;
    while ((option = getopt(argc, argv, "b:p:t:r:d:w")) != -1) {
        if (option == 'b')
            piece = atol(optarg);
        else if (option == 'p')
            pause_us = atol(optarg);
        else if (option == 'd')
            file_pause_us = atol(optarg) * 1000;
        else if (option == 't')
            threads = atoi(optarg) < THREADS_MAX ? atoi(optarg) : THREADS_MAX;
        else if (option == 'r')
            rounds = atoi(optarg);
        else if (option == 'w')
            again = 1;
        else
            return 2;
    }
    if (argc - optind < 2 || piece == 0 || threads < 1)
        return 2;
    struct sigaction action = {.sa_handler = on_bus};
    sigaction(SIGBUS, &action, NULL);
    for (; number <= rounds; number++)
        round_of(argv[optind], number, argv + optind + 1);
    for (; again && read(0, &line, 1) == 1; number++)
        round_of(argv[optind], number, argv + optind + 1);
    return 0;
}
