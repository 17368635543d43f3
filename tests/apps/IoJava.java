// Ways in which Java programs read files. Usage: java IoJava CASE FILE SCRATCH
// Compared between a plain folder and a managed one, so nothing here knows of either.

import java.io.BufferedReader;
import java.io.File;
import java.io.FileInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.channels.AsynchronousFileChannel;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.concurrent.Callable;
import java.util.stream.Stream;
import java.util.zip.CRC32;
import java.util.zip.ZipFile;

public class IoJava {
    static String sum(byte[] data) {
        CRC32 crc = new CRC32();
        crc.update(data);
        return data.length + " " + Long.toHexString(crc.getValue());
    }

    static void attempt(String what, Callable<Object> call) {
        try {
            Object value = call.call();
            System.out.println(what + " " + (value instanceof byte[] data ? sum(data) : value));
        } catch (Exception error) {
            System.out.println(what + " " + error.getClass().getSimpleName() + " " + error.getMessage());
        }
    }

    static void streams(Path file) throws Exception {
        attempt("all", () -> Files.readAllBytes(file));
        try (FileInputStream in = new FileInputStream(file.toFile())) {
            attempt("available", in::available);
            attempt("skip", () -> in.skip(100_000));
            attempt("some", () -> in.readNBytes(70_001));
            attempt("rest", in::readAllBytes);
            attempt("end", in::read);
        }
        try (BufferedReader in = Files.newBufferedReader(Path.of("lines.txt"))) {
            attempt("lines", () -> in.lines().mapToLong(String::length).sum());
        }
        attempt("absent", () -> Files.readAllBytes(Path.of("nested/absent")));
    }

    static void random(Path file) throws Exception {
        try (RandomAccessFile in = new RandomAccessFile(file.toFile(), "r")) {
            attempt("length", in::length);
            byte[] room = new byte[50_000];
            for (long at : new long[] {0, 4097, in.length() - 10, in.length(), in.length() + 5}) {
                in.seek(at);
                int got = in.read(room);
                System.out.println(at + " " + got + " " + in.getFilePointer() + " " + sum(room));
            }
            attempt("negative", () -> { in.seek(-1); return 0; });
            attempt("write", () -> { in.write(1); return 0; });
            attempt("short", () -> { in.seek(in.length()); return in.readInt(); });
        }
    }

    static void maps(Path file) throws Exception {
        try (FileChannel in = FileChannel.open(file)) {
            ByteBuffer map = in.map(FileChannel.MapMode.READ_ONLY, 0, in.size());
            byte[] all = new byte[map.remaining()];
            map.get(all);
            System.out.println("whole " + sum(all));
            ByteBuffer part = in.map(FileChannel.MapMode.READ_ONLY, 4099, 8000);
            byte[] data = new byte[8000];
            part.get(data);
            System.out.println("part " + sum(data));
            try {
                in.map(FileChannel.MapMode.READ_WRITE, 0, 100);
            } catch (RuntimeException error) {
                System.out.println("for writing " + error.getClass().getSimpleName());
            }
        }
    }

    static void channels(Path file, Path scratch) throws Exception {
        Path target = scratch.resolve("java-channel");
        try (FileChannel in = FileChannel.open(file);
                FileChannel out = FileChannel.open(target, StandardOpenOption.CREATE, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            attempt("transferTo", () -> in.transferTo(1000, in.size() - 2000, out));
            attempt("transferFrom", () -> out.transferFrom(in.position(5), 7, 4000));
            attempt("position", in::position);
            ByteBuffer[] rooms = {ByteBuffer.allocate(11), ByteBuffer.allocateDirect(9000)};
            attempt("scattered", () -> in.read(rooms));
            ByteBuffer at = ByteBuffer.allocate(6000);
            attempt("positional", () -> in.read(at, 12_345));
            System.out.println(sum(at.array()));
            try {
                in.write(ByteBuffer.allocate(1));
            } catch (RuntimeException error) {
                System.out.println("write " + error.getClass().getSimpleName());
            }
        }
        attempt("arrived", () -> Files.readAllBytes(target));
        try (AsynchronousFileChannel in = AsynchronousFileChannel.open(file)) {
            ByteBuffer room = ByteBuffer.allocate(70_000);
            attempt("asynchronous", () -> in.read(room, 99).get());
            System.out.println(sum(room.array()));
        }
    }

    static void names(Path file, Path scratch) throws Exception {
        try (Stream<Path> tree = Files.walk(Path.of("."))) {
            for (Path path : tree.sorted().toList())
                System.out.println(path + (Files.isDirectory(path) ? "" : " " + Files.size(path)));
        }
        File old = file.toFile();
        System.out.println(old.length() + " " + old.exists() + " " + old.canRead() + " " + new File("absent").exists());
        System.out.println(file.toRealPath().equals(Path.of(".").toRealPath().resolve(file)) + " " + Files.isRegularFile(file));
        attempt("canonical", () -> old.getCanonicalPath().endsWith(file.toString()));
        attempt("copy", () -> Files.copy(file, scratch.resolve("java-copy")).getFileName());
        attempt("copied", () -> Files.readAllBytes(scratch.resolve("java-copy")));
        attempt("mismatch", () -> Files.mismatch(file, scratch.resolve("java-copy")));
        attempt("exists", () -> Files.createFile(file));
        try (ZipFile zip = new ZipFile("archive.zip")) {
            attempt("zip", () -> zip.getInputStream(zip.getEntry("member.bin")).readAllBytes());
        }
    }

    static void children(Path file) throws Exception {
        for (String[] argv : new String[][] {{"sha256sum"}, {"sh", "-c", "head -c 1000 | sha256sum; sha256sum"}}) {
            Process child = new ProcessBuilder(argv).redirectInput(file.toFile()).start();
            System.out.print(new String(child.getInputStream().readAllBytes()));
            System.out.println(child.waitFor());
        }
        Process child = new ProcessBuilder("sha256sum", file.toString(), "nested/deep/c.bin").start();
        System.out.print(new String(child.getInputStream().readAllBytes()));
        Thread[] threads = new Thread[4];
        String[] sums = new String[4];
        for (int i = 0; i < 4; i++) {
            int number = i;
            threads[i] = new Thread(() -> {
                try (InputStream in = Files.newInputStream(file)) {
                    in.skipNBytes(number * 1000L);
                    sums[number] = sum(in.readAllBytes());
                } catch (IOException error) {
                    sums[number] = error.toString();
                }
            });
            threads[i].start();
        }
        for (Thread thread : threads) thread.join();
        System.out.println(String.join("\n", sums));
    }

    public static void main(String[] given) throws Exception {
        Path file = Path.of(given[1]), scratch = Path.of(given[2]);
        switch (given[0]) {
            case "streams" -> streams(file);
            case "random" -> random(file);
            case "maps" -> maps(file);
            case "channels" -> channels(file, scratch);
            case "names" -> names(file, scratch);
            case "children" -> children(file);
            default -> System.exit(2);
        }
    }
}
