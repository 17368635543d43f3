/* Operations that copy between descriptors inside the kernel, and names of open files. */

/* Notes what a scratch file holds, and empties it. */
static void say_file(int fd) {
    long size = lseek(fd, 0, SEEK_END);
    uint64_t hash = FOLD_START;
    for (long at = 0; at < size;) {
        ssize_t n = pread(fd, pool, 4 * MIB, at);
        if (n <= 0) break;
        hash = fold(hash, pool, (size_t)n);
        at += n;
    }
    say(" out=%ld h%016llx", size, (unsigned long long)hash);
    if (ftruncate(fd, 0)) say(" ftruncate failed");
    lseek(fd, 0, SEEK_SET);
}

static int scratch_file(void) {
    char path[PATH_MAX + 16];
    snprintf(path, sizeof path, "%s/out", scratch);
    return open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
}

/* At most 3 MiB of a large file: the copies are compared, not their speed. */
static long copy_count(void) {
    return one_in(30) ? below(9 * MIB) : one_in(4) ? below(300 * KIB) : one_in(20) ? 0 : below(9000);
}

static void op_sendfile(void) {
    int file, fd = target(&file), out = scratch_file(), kind = (int)below(6);
    long count = copy_count();
    off_t where = any_offset(file);
    say(" kind=%d n=%ld at=%ld", kind, count, (long)where);
    switch (kind) {
    case 0: NOTE("sendfile", sendfile(out, fd, NULL, (size_t)count)); break;
    case 1: NOTE("sendfile", sendfile(out, fd, &where, (size_t)count)); break;
    case 2: NOTE("sendfile-bad", sendfile(-1, fd, &where, (size_t)count)); break;
    case 3: NOTE("sendfile-bad", sendfile(out, fd, nowhere, (size_t)count)); break;
    case 4: NOTE("sendfile-ro", sendfile(read_only(fd), out, NULL, (size_t)count)); break;
    default: NOTE("sys_sendfile", syscall(SYS_sendfile, out, fd, &where, count));
    }
    say(" at=%ld", (long)where);
    say_file(out);
    close(out);
    offset(fd);
}

static void op_copy_range(void) {
    int file, fd = target(&file), out = scratch_file(), kind = (int)below(7);
    long count = copy_count();
    off_t where = any_offset(file), there = below(5000);
    say(" kind=%d n=%ld at=%ld", kind, count, (long)where);
    switch (kind) {
    case 0: NOTE("cfr", copy_file_range(fd, NULL, out, NULL, (size_t)count, 0)); break;
    case 1: NOTE("cfr", copy_file_range(fd, &where, out, NULL, (size_t)count, 0)); break;
    case 2: NOTE("cfr", copy_file_range(fd, NULL, out, &there, (size_t)count, 0)); break;
    case 3: NOTE("cfr-flags", copy_file_range(fd, NULL, out, NULL, (size_t)count, 1)); break;
    case 4: NOTE("cfr-bad", copy_file_range(fd, &where, -1, NULL, (size_t)count, 0)); break;
    case 5: NOTE("cfr-ro", copy_file_range(out, NULL, read_only(fd), NULL, (size_t)count, 0)); break;
    default: NOTE("sys_cfr", syscall(SYS_copy_file_range, fd, &where, out, &there, count, 0));
    }
    say(" at=%ld there=%ld pos=%ld", (long)where, (long)there, (long)lseek(out, 0, SEEK_CUR));
    say_file(out);
    close(out);
    offset(fd);
}

/* How much one splice moves is the pipe's business: compared is the sum of a loop. */
static void op_splice(void) {
    int file, fd = target(&file), ends[2], is_at = one_in(2);
    long count = one_in(3) ? below(60 * KIB) : below(5000), sum = 0;
    loff_t where = any_offset(file);
    say(" n=%ld at=%ld", count, is_at ? (long)where : -1L);
    if (pipe(ends)) return;
    while (sum < count && CALL(splice(fd, is_at ? &where : NULL, ends[1], NULL, (size_t)(count - sum), SPLICE_F_NONBLOCK)) > 0) sum += call_result;
    if (sum == 0) said("splice", call_result);
    say(" sum=%ld", sum);
    close(ends[1]);
    drain(ends[0]);
    close(ends[0]);
    offset(fd);
}

static void op_aio(void) {
    int file, fd = target(&file), is_list = one_in(4);
    long count = any_count(), where = any_offset(file);
    /* A whole large file takes a thread of the C library too long. */
    if (count > 300 * KIB || count < 0) count = 300 * KIB;
    unsigned char *at = dest(count);
    struct aiocb block = {.aio_fildes = fd, .aio_buf = at, .aio_nbytes = (size_t)count, .aio_offset = where, .aio_lio_opcode = LIO_READ};
    const struct aiocb *waited[1] = {&block};
    struct aiocb *list[1] = {&block};
    say(" n=%ld at=%ld", count, where);
    long asked = is_list ? CALL(lio_listio(LIO_WAIT, list, 1, NULL)) : CALL(aio_read(&block));
    said(is_list ? "lio_listio" : "aio_read", asked);
    if (asked && !is_list) return;
    while (aio_error(&block) == EINPROGRESS) aio_suspend(waited, 1, NULL);
    say(" error=%d", aio_error(&block));
    /* The library may leave errno alone or not. */
    long result = aio_return(&block);
    noted_errno = 0;
    got("return", result, at);
    offset(fd);
}

/* Opens the file behind a number anew, with an offset of its own. */
static void op_reopen(void) {
    char path[64];
    int slot = used_fd();
    if (slot < 0) return;
    int file = fds[slot].file, flag = one_in(6) ? O_RDWR : one_in(8) ? O_PATH : O_RDONLY;
    snprintf(path, sizeof path, one_in(3) ? "/dev/fd/%d" : "/proc/self/fd/%d", fds[slot].fd);
    say(" fd%d:%s flags=%o", fds[slot].fd, files[file].name, flag);
    int fd = (int)NOTE("reopen", open(path, flag));
    if (fd < 0) return;
    unsigned char *at = dest(2000);
    got("read", CALL(read(fd, at, 2000)), at);
    offset(fd);
    offset(fds[slot].fd);
    keep(fd, file, flag);
}

static void say_name(const char *what, long n, const char *name) {
    said(what, n < 0 ? n : 0);
    if (n >= 0) say_path(name);
}

static void op_readlink(void) {
    char path[PATH_MAX + 32], name[PATH_MAX + 1] = "";
    int slot = used_fd(), stream = used_stream(), file = any_file();
    const char *resolved;
    long n;
    switch (below(6)) {
    case 0: snprintf(path, sizeof path, "%s/link%d", scratch, file); break;
    case 1: snprintf(path, sizeof path, "%s", files[file].name); break;
    case 2: case 3:
        if (stream < 0) return;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fileno(streams[stream].stream));
        break;
    default:
        if (slot < 0) return;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fds[slot].fd);
    }
    say_path(path);
    switch (below(4)) {
    case 0:
        resolved = (const char *)CALL(realpath(path, name));
        /* The C library's own leaves an errno behind when it succeeds. */
        if (resolved) noted_errno = 0;
        say_name("realpath", resolved ? 0 : -1, name);
        break;
    case 1: n = CALL(readlinkat(AT_FDCWD, path, name, PATH_MAX)); say_name("readlinkat", n, name); break;
    case 2: NOTE("readlink-bad", readlink(path, nowhere, 100)); break;
    default: n = CALL(readlink(path, name, PATH_MAX)); say_name("readlink", n, name);
    }
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static void op_list(void) {
    static const char *const places[] = {".", "sub", "sub/deep", "sub/absent", "a.bin"};
    const char *place = PICK(places);
    say(" %s", place);
    DIR *dir = (DIR *)CALL(opendir(place));
    if (!dir) { said("opendir", -1); return; }
    char *names[64];
    int n = 0;
    for (struct dirent *entry; n < 64 && (entry = readdir(dir));) if (entry->d_name[0] != '.') names[n++] = strdup(entry->d_name);
    closedir(dir);
    qsort(names, (size_t)n, sizeof *names, by_name);
    for (int i = 0; i < n; i++) { say(" %s", names[i]); free(names[i]); }
}
