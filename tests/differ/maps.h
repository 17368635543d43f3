/* Operations on maps: made in the ways that loaders use, looked at, written (own copies), cut and grown. */

/* Before the pages and after the end of the file: only what the map has. */
static long in_file(int slot) {
    long left = files[maps[slot].file].size - maps[slot].off;
    long pages = (left + PAGE - 1) / PAGE * PAGE;
    return pages < maps[slot].len ? pages : maps[slot].len;
}

/* How much of a map is looked at: not beyond the end of the file where this kernel shows pages there (DIFFER_MAPS=within). */
static long looked_at(int slot) {
    static int within = -1;
    if (within < 0) within = getenv("DIFFER_MAPS") != NULL;
    long known = in_file(slot);
    return !within ? maps[slot].len : known < 0 ? 0 : known;
}

/* What is in a stretch of a map; all of it if it is small. */
static void look(int slot) {
    long len = looked_at(slot), good = 0;
    if (len == 0) return;
    uint64_t hash = FOLD_START;
    if (!(maps[slot].prot & PROT_READ)) return;
    if (len <= 300 * KIB) hash = fold_pages(hash, maps[slot].at, len, &good);
    else for (int i = 0; i < 6; i++) {
        long count = 1 + below(40 * KIB), from = i == 0 ? 0 : i == 1 ? len - count : below(len - count);
        long part = 0;
        hash = fold_pages(hash, maps[slot].at + from, count, &part);
        good += part;
    }
    say(" seen=%ld h%016llx", good, (unsigned long long)hash);
}

static void drop_map(int slot) {
    munmap(maps[slot].at, (size_t)maps[slot].len);
    maps[slot].at = NULL;
}

static void op_mmap(void) {
    static const int prots[] = {PROT_READ, PROT_READ, PROT_READ, PROT_READ | PROT_WRITE, PROT_NONE, PROT_READ | PROT_EXEC};
    static const int kinds[] = {MAP_PRIVATE, MAP_PRIVATE, MAP_PRIVATE, MAP_SHARED, MAP_SHARED_VALIDATE};
    int slot = (int)below(MAPS), file, fd = target(&file), prot = PICK(prots), kind = PICK(kinds), more = 0;
    if (maps[slot].at) drop_map(slot);
    int is_writer = (fcntl(fd, F_GETFL) & O_ACCMODE) != O_RDONLY;
    /* A writable shared map of what is open for writing is a documented difference. */
    if (kind != MAP_PRIVATE && is_writer) prot &= ~PROT_WRITE;
    if (one_in(4)) more |= MAP_POPULATE;
    if (one_in(6)) more |= MAP_NORESERVE;
    long size = files[file].size, off = one_in(2) ? 0 : PAGE * below(size / PAGE + 2);
    long len = one_in(3) ? size - off : one_in(3) ? size - off + below(4 * PAGE) : 1 + below(200 * KIB);
    if (len < 1) len = 1 + below(3 * PAGE);
    void *hint = NULL;
    if (one_in(20)) off += 1 + below(4095);
    else if (one_in(40)) len = 0;
    else if (one_in(40)) kind = 0;
    else if (one_in(60)) off = -PAGE;
    else if (one_in(16)) { hint = mmap(NULL, (size_t)len + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); more |= MAP_FIXED; }
    say(" len=%ld off=%ld prot=%d flags=%x", len, off, prot, kind | more);
    if (one_in(8)) CALL(syscall(SYS_mmap, hint, len, prot, kind | more, fd, off));
    else if (one_in(2)) CALL(mmap64(hint, (size_t)len, prot, kind | more, fd, off));
    else CALL(mmap(hint, (size_t)len, prot, kind | more, fd, off));
    unsigned char *at = (unsigned char *)call_result;
    if (at == MAP_FAILED) { said("mmap", -1); return; }
    say(" mapped%s", hint && at != hint ? " elsewhere" : "");
    maps[slot].at = at;
    maps[slot].len = len;
    maps[slot].off = off;
    maps[slot].file = file;
    maps[slot].prot = prot;
    maps[slot].is_shared = kind != MAP_PRIVATE;
    maps[slot].is_writer = is_writer;
    look(slot);
}

static void op_map_use(void) {
    int slot = used_map(), ends[2];
    if (slot < 0) { op_mmap(); return; }
    unsigned char *at = maps[slot].at;
    long len = maps[slot].len, known = in_file(slot), from = PAGE * below(len / PAGE + 1), cut;
    say(" map%d:%s len=%ld off=%ld", slot, files[maps[slot].file].name, len, maps[slot].off);
    switch (below(14)) {
    case 0: NOTE("msync", msync(at, (size_t)len, one_in(2) ? MS_SYNC : MS_ASYNC)); break;
    case 1: NOTE("msync-bad", msync(at + 1, 10, MS_SYNC)); break;
    case 2:
        if (maps[slot].is_shared && maps[slot].is_writer) break;
        if (NOTE("mprotect-write", mprotect(at, (size_t)len, PROT_READ | PROT_WRITE)) == 0) maps[slot].prot = PROT_READ | PROT_WRITE;
        break;
    case 3: if (NOTE("mprotect-read", mprotect(at, (size_t)len, PROT_READ)) == 0) maps[slot].prot = PROT_READ; break;
    case 4: case 5:
        if (!(maps[slot].prot & PROT_WRITE) || maps[slot].is_shared || known < 10) break;
        cut = below(known - 9);
        memset(at + cut, (int)below(256), (size_t)below(known - cut > 5000 ? 5000 : known - cut));
        say(" written");
        break;
    case 6:
        if (from == 0 || from >= len) break;
        NOTE("munmap-head", munmap(at, (size_t)from));
        maps[slot].at += from;
        maps[slot].off += from;
        maps[slot].len -= from;
        break;
    case 7:
        if (from == 0 || from >= len) break;
        NOTE("munmap-tail", munmap(at + from, (size_t)(len - from)));
        maps[slot].len = from;
        break;
    case 8: case 9: {
        long wish = one_in(2) ? len + below(one_in(4) ? 20 * MIB : 64 * KIB) : 1 + below(len);
        say(" wish=%ld", wish);
        CALL(mremap(at, (size_t)len, (size_t)wish, MREMAP_MAYMOVE));
        if ((void *)call_result == MAP_FAILED) { said("mremap", -1); break; }
        say(" mremapped");
        maps[slot].at = (unsigned char *)call_result;
        maps[slot].len = wish;
        break;
    }
    case 10: {
        static const int advices[] = {MADV_NORMAL, MADV_WILLNEED, MADV_SEQUENTIAL, MADV_RANDOM, MADV_DONTNEED, 4242, 22 /* POPULATE_READ */, MADV_DONTFORK, MADV_DOFORK};
        int advice = PICK(advices);
        say(" advice=%d", advice);
        NOTE("madvise", madvise(at, (size_t)len, advice));
        break;
    }
    case 11: NOTE("mlock", mlock(at, (size_t)(len < PAGE ? len : PAGE))); munlock(at, (size_t)len); break;
    /* The kernel reads the map. */
    case 12:
        len = looked_at(slot);
        if (len == 0 || pipe(ends)) break;
        from = len > 6000 ? below(len - 5000) : 0;
        NOTE("write", write(ends[1], at + from, (size_t)(len - from < 5000 ? len - from : 5000)));
        close(ends[1]);
        drain(ends[0]);
        close(ends[0]);
        break;
    /* The kernel writes into an own copy. */
    default:
        if (!(maps[slot].prot & PROT_WRITE) || maps[slot].is_shared) break;
        {
            int file, fd = target(&file);
            long where = any_offset(file), count = below(one_in(3) ? 200 * KIB : 9000);
            len = looked_at(slot);
            from = below(len ? len : 1);
            NOTE("pread", pread(fd, at + from, (size_t)(count < len - from ? count : len - from), where));
        }
    }
    look(slot);
    if (maps[slot].len > 70 * MIB || one_in(9)) drop_map(slot);
}

/* A child sees the same map; what it writes to its own copy stays there. */
static void op_map_fork(void) {
    int slot = used_map();
    if (slot < 0) { op_mmap(); return; }
    uint64_t keep_state = state;
    pid_t child = fork();
    if (child == 0) {
        trace_len = 0;
        static char own[1 << 17];
        trace = own;
        trace_max = sizeof own;
        look(slot);
        shared[0].hash = (long)fold(7, (unsigned char *)own, trace_len);
        if (maps[slot].prot & PROT_WRITE && !maps[slot].is_shared && in_file(slot) > 0) memset(maps[slot].at, 9, 100 < in_file(slot) ? 100 : 1);
        _exit(0);
    }
    reap(child);
    say(" child h%016lx", (unsigned long)shared[0].hash);
    state = keep_state;
    look(slot);
}
