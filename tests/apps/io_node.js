// Ways in which Node programs read files; libuv makes many of its calls by number. Usage: io_node.js CASE FILE SCRATCH
// Compared between a plain folder and a managed one, so nothing here knows of either.
'use strict';
const fs = require('fs');
const path = require('path');
const crypto = require('crypto');
const child = require('child_process');

const [, , name, file, scratch] = process.argv;
const digest = (data) => crypto.createHash('sha256').update(data).digest('hex').slice(0, 24);
const show = (what, value) => console.log(what, Buffer.isBuffer(value) ? `${value.length} ${digest(value)}` : value);
const attempt = (what, call) => {
  try { show(what, call()); } catch (error) { console.log(what, error.code, error.errno, error.syscall); }
};

const cases = {
  whole() {
    attempt('readFileSync', () => fs.readFileSync(file));
    attempt('text', () => fs.readFileSync('lines.txt', 'utf8').length);
    attempt('size', () => fs.statSync(file).size);
    attempt('absent', () => fs.readFileSync('nested/absent'));
    attempt('folder', () => fs.readFileSync('nested'));
  },
  positional() {
    const fd = fs.openSync(file, 'r');
    const size = fs.fstatSync(fd, { bigint: true }).size;
    const room = Buffer.alloc(100001);
    show('size', size);
    for (const at of [null, null, 0, 4097, Number(size) - 100, Number(size)]) {
      const got = fs.readSync(fd, room, 0, room.length, at);
      show(`at ${at}`, room.subarray(0, got));
    }
    attempt('readv', () => fs.readvSync(fd, [Buffer.alloc(7), Buffer.alloc(70000)]));
    attempt('readv at', () => fs.readvSync(fd, [Buffer.alloc(7), Buffer.alloc(70000)], 12345));
    attempt('write', () => fs.writeSync(fd, 'x'));
    attempt('truncate', () => fs.ftruncateSync(fd, 3));
    fs.closeSync(fd);
    attempt('closed', () => fs.readSync(fd, room));
  },
  async stream() {
    const hash = crypto.createHash('sha256');
    for await (const block of fs.createReadStream(file)) hash.update(block);
    show('all', hash.digest('hex'));
    const window = [];
    for await (const block of fs.createReadStream(file, { start: 1000, end: 99999, highWaterMark: 999 })) window.push(block);
    show('window', Buffer.concat(window));
    const target = path.join(scratch, 'piped');
    await require('stream/promises').pipeline(fs.createReadStream(file), fs.createWriteStream(target));
    show('piped', fs.readFileSync(target));
  },
  async handles() {
    const handle = await fs.promises.open(file);
    const { bytesRead, buffer } = await handle.read({ buffer: Buffer.alloc(54321), position: 777 });
    show('read', buffer.subarray(0, bytesRead));
    show('size', (await handle.stat()).size);
    show('rest', await handle.readFile());
    await handle.close();
    const many = await Promise.all(Array.from({ length: 8 }, () => fs.promises.readFile(file)));
    show('together', many.map(digest).join());
    await fs.promises.readFile('nested/deep/absent').catch((error) => show('absent', error.code));
  },
  copies() {
    const target = path.join(scratch, 'node-copy');
    for (const mode of [0, fs.constants.COPYFILE_FICLONE]) {
      fs.copyFileSync(file, target, mode);
      show('copied', fs.readFileSync(target));
    }
    attempt('exists', () => fs.copyFileSync(file, target, fs.constants.COPYFILE_EXCL));
    fs.cpSync('nested', path.join(scratch, 'tree'), { recursive: true });
    show('tree', fs.readFileSync(path.join(scratch, 'tree/deep/c.bin')));
  },
  names() {
    show('list', fs.readdirSync('.').sort().join());
    show('types', fs.readdirSync('.', { withFileTypes: true }).map((e) => `${e.name} ${e.isFile()}`).sort().join());
    show('all', fs.readdirSync('.', { recursive: true }).sort().join());
    const folder = fs.opendirSync('nested/deep');
    for (let entry; (entry = folder.readSync());) show('entry', entry.name);
    folder.closeSync();
    const status = fs.lstatSync(file);
    show('lstat', `${status.size} ${status.isFile()} ${status.nlink} ${status.blocks * 512 >= status.size}`);
    show('real', fs.realpathSync(file) === path.join(fs.realpathSync('.'), file));
    show('native', fs.realpathSync.native(file) === path.join(fs.realpathSync('.'), file));
    show('access', [fs.existsSync(file), fs.existsSync('absent')].join());
    attempt('not executable', () => fs.accessSync(file, fs.constants.X_OK));
    attempt('readlink', () => fs.readlinkSync(file));
  },
  children() {
    const fd = fs.openSync(file, 'r');
    fs.readSync(fd, Buffer.alloc(4096));
    show('stdin', child.spawnSync('sha256sum', { stdio: [fd, 'pipe', 'inherit'] }).stdout.toString());
    show('position', fs.readSync(fd, Buffer.alloc(10)));
    const again = fs.openSync(file, 'r');
    show('fd 3', child.spawnSync('sh', ['-c', 'head -c 1000 <&3 | sha256sum'], { stdio: ['ignore', 'pipe', 'inherit', again] }).stdout.toString());
    show('by name', child.execFileSync('sha256sum', [file, 'nested/deep/c.bin']).toString());
    show('node', child.execFileSync(process.execPath, ['-e', `console.log(require("fs").statSync(${JSON.stringify(file)}).size)`]).toString());
  },
  workers() {
    const { Worker } = require('worker_threads');
    const code = `const {workerData, parentPort} = require('worker_threads'); const fs = require('fs');
      const fd = fs.openSync(workerData.file); const room = Buffer.alloc(99999);
      const got = fs.readSync(fd, room, 0, room.length, workerData.at); fs.closeSync(fd);
      parentPort.postMessage([workerData.at, got, require('crypto').createHash('sha256').update(room).digest('hex')])`;
    const answers = [0, 5, 100000, 2000000].map((at) => new Promise((done) => {
      new Worker(code, { eval: true, workerData: { file, at } }).on('message', done);
    }));
    return Promise.all(answers).then((all) => show('workers', all.join('\n')));
  },
};

Promise.resolve(cases[name]()).catch((error) => { console.error(error); process.exitCode = 3; });
