/* Operations with other processes and threads: a shared offset, a descriptor that travels, a command. */

static void op_fork(void) {
    int file, fd = target(&file), kind = (int)below(4);
    long count = below(one_in(4) ? 200 * KIB : 5000), where = any_offset(file);
    unsigned char *at = dest(count);
    struct iovec list[2] = {{at, (size_t)count / 2}, {at + count / 2, (size_t)(count - count / 2)}};
    say(" kind=%d n=%ld at=%ld", kind, count, where);
    pid_t child = fork();
    if (child == 0) {
        switch (kind) {
        case 0: CALL(pread(fd, at, (size_t)count, where)); break;
        case 1: CALL(readv(fd, list, 2)); break;
        case 2: CALL(lseek(fd, -7, SEEK_END)); CALL(read(fd, at, (size_t)count)); break;
        default: CALL(read(fd, at, (size_t)count));
        }
        shared[0] = (struct shared){call_result, noted_errno, call_result > 0 ? (long)fold(FOLD_START, at, (size_t)call_result) : 0, 0};
        _exit(0);
    }
    reap(child);
    say(" child=%ld/e%ld h%016lx", shared[0].result, shared[0].errno_, (unsigned long)shared[0].hash);
    offset(fd);
    at = dest(500);
    got("then", CALL(read(fd, at, 500)), at);
    offset(fd);
}

/* Parent and child read one open file at once: nothing is lost or doubled, whoever gets it. */
static void op_fork_race(void) {
    int file, fd = target(&file);
    long count = 1 + below(one_in(3) ? 80 * KIB : 5000), sum = 0, total = 0;
    say(" n=%ld", count);
    unsigned char *at = dest(count);
    pid_t child = fork();
    for (int i = 0; i < 3; i++) {
        ssize_t n = read(fd, at, (size_t)count);
        if (n <= 0) continue;
        total += n;
        sum += (long)fold(FOLD_START, at, (size_t)n);
    }
    if (child == 0) {
        shared[0].hash = sum;
        shared[0].result = total;
        _exit(0);
    }
    reap(child);
    say(" total=%ld h%016lx", total + shared[0].result, (unsigned long)(sum + shared[0].hash));
    offset(fd);
}

#define THREADS 3
#define RACERS 8
static struct job { int fd, is_positional; long count, where, result, hash, errno_; unsigned char *at; } jobs[RACERS];

static void *work(void *given) {
    struct job *job = given;
    for (int i = 0; i < 3; i++) {
        errno = 0;
        ssize_t n = job->is_positional ? pread(job->fd, job->at, (size_t)job->count, job->where + i * job->count)
                                       : read(job->fd, job->at, (size_t)job->count);
        if (n < 0) job->errno_ += errno;
        if (n <= 0) continue;
        job->result += n;
        job->hash += (long)fold(FOLD_START, job->at, (size_t)n);
    }
    return NULL;
}

static void op_threads(void) {
    int file, fd = target(&file), is_positional = one_in(2);
    long count = 1 + below(one_in(3) ? 200 * KIB : 6000), result = 0, hash = 0, errnos = 0;
    pthread_t threads[THREADS];
    pthread_attr_t attributes;
    if (!is_positional && one_in(2)) {
        long size = files[file].size, back = below(6 * count);
        NOTE("seek", lseek(fd, size > back ? size - back : 0, SEEK_SET));
    }
    say(" n=%ld positional=%d", count, is_positional);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, 64 * KIB);
    for (int i = 0; i < THREADS; i++) {
        jobs[i] = (struct job){.fd = fd, .is_positional = is_positional, .count = count, .where = any_offset(file), .at = pool + i * MIB};
        pthread_create(&threads[i], &attributes, work, &jobs[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        result += jobs[i].result;
        hash += jobs[i].hash;
        errnos += jobs[i].errno_;
    }
    pthread_attr_destroy(&attributes);
    say(" sum=%ld h%016lx e%ld", result, (unsigned long)hash, errnos);
    offset(fd);
}

static struct { pthread_barrier_t barrier; int fd; long from, size, count, wrong; } race;
#define ROUNDS 30

static void *race_to_end(void *given) {
    struct job *job = given;
    for (int i = 0; i < ROUNDS; i++) {
        if (job == jobs) lseek(race.fd, race.from, SEEK_SET);
        pthread_barrier_wait(&race.barrier);
        ssize_t n = read(race.fd, job->at, (size_t)race.count);
        if (n > 0) {
            job->result += n;
            job->hash += (long)fold(FOLD_START, job->at, (size_t)n);
        }
        pthread_barrier_wait(&race.barrier);
        if (job == jobs) race.wrong += lseek(race.fd, 0, SEEK_CUR) != race.size;
    }
    return NULL;
}

/* All threads meet the end of the file at once: the offset stays there, and each byte comes once. */
static void op_end_race(void) {
    pthread_t threads[RACERS];
    long result = 0, hash = 0;
    int file = any_file();
    race.fd = open(files[file].name, O_RDONLY);
    race.size = files[file].size;
    race.count = 1 + below(one_in(4) ? 90 * KIB : 3000);
    long back = below(3 * race.count);
    race.from = back < race.size ? race.size - back : 0;
    race.wrong = 0;
    /* Whoever comes last finds nothing left, if the file is not longer than what all ask for. */
    say(" %s n=%ld from=%ld", files[file].name, race.count, race.from);
    pthread_barrier_init(&race.barrier, NULL, RACERS);
    for (int i = 0; i < RACERS; i++) {
        jobs[i] = (struct job){.at = pool + i * MIB};
        pthread_create(&threads[i], NULL, race_to_end, &jobs[i]);
    }
    for (int i = 0; i < RACERS; i++) {
        pthread_join(threads[i], NULL);
        result += jobs[i].result;
        hash += jobs[i].hash;
    }
    pthread_barrier_destroy(&race.barrier);
    close(race.fd);
    say(" sum=%ld h%016lx wrong=%ld", result, (unsigned long)hash, race.wrong);
}

/* A descriptor goes to a child by message and is read there. */
static void op_rights(void) {
    int file, fd = target(&file), ends[2];
    long count = below(9000);
    char byte = 'x', control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = {0};
    struct iovec list = {&byte, 1};
    struct msghdr message = {.msg_iov = &list, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    say(" n=%ld", count);
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, ends)) return;
    pid_t child = fork();
    if (child == 0) {
        unsigned char *at = dest(count);
        long n = recvmsg(ends[0], &message, 0);
        int got_fd = -1;
        if (n == 1 && CMSG_FIRSTHDR(&message)) memcpy(&got_fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof got_fd);
        CALL(read(got_fd, at, (size_t)count));
        shared[0] = (struct shared){call_result, noted_errno, call_result > 0 ? (long)fold(FOLD_START, at, (size_t)call_result) : 0, got_fd};
        _exit(0);
    }
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    /* A bad number cannot travel: then the child gets none. */
    if (NOTE("sendmsg", sendmsg(ends[1], &message, 0)) < 0) send(ends[1], "y", 1, 0);
    reap(child);
    close(ends[0]);
    close(ends[1]);
    say(" child=%ld/e%ld h%016lx fd%ld", shared[0].result, shared[0].errno_, (unsigned long)shared[0].hash, shared[0].more);
    offset(fd);
}

/* Puts the offset so near to the end that a command has little to do. */
static void near_end(int fd, int file) {
    long size = files[file].size, left = below(700 * KIB);
    lseek(fd, size > left ? size - left : 0, SEEK_SET);
}

static char *const *any_command(void) {
    static char *const cat[] = {"cat", NULL}, *const head[] = {"head", "-c", "3000", NULL};
    return one_in(4) ? head : cat;
}

static void op_spawn(void) {
    int file, fd = target(&file), ends[2], by_path = one_in(3) && files[file].size < MIB;
    pid_t child = -1;
    posix_spawn_file_actions_t actions;
    near_end(fd, file);
    char *const *command = any_command();
    if (pipe2(ends, O_CLOEXEC)) return;
    posix_spawn_file_actions_init(&actions);
    if (by_path) posix_spawn_file_actions_addopen(&actions, 0, files[file].name, O_RDONLY, 0);
    else posix_spawn_file_actions_adddup2(&actions, fd, 0);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0);
    say(" %s path=%d", command[0], by_path);
    extern char **environ;
    int failed = posix_spawnp(&child, command[0], &actions, NULL, command, environ);
    posix_spawn_file_actions_destroy(&actions);
    say(" spawn=%d", failed);
    close(ends[1]);
    drain(ends[0]);
    close(ends[0]);
    if (!failed) reap(child);
    offset(fd);
}

static void op_vfork(void) {
    int file, fd = target(&file), ends[2];
    near_end(fd, file);
    char *const *command = any_command();
    say(" %s", command[0]);
    if (pipe2(ends, O_CLOEXEC)) return;
    pid_t child = vfork();
    if (child == 0) {
        dup2(fd, 0);
        dup2(ends[1], 1);
        close_range(3, 499, 0);
        execvp(command[0], command);
        _exit(127);
    }
    close(ends[1]);
    drain(ends[0]);
    close(ends[0]);
    reap(child);
    offset(fd);
    /* The parent's own descriptors are as they were. */
    unsigned char *at = dest(400);
    got("then", CALL(pread(fd, at, 400, 0)), at);
}
