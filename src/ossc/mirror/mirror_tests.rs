//! What listings make of MODEL_DIR, on real files and memory, without a network: the listings are made here.

use super::*;
use crate::work::residency::unused::Unused;
use crate::work::shared::item::Arrived;
use crate::work::still::{self, Random};
use ossc_cache::region::Identity;
use ossc_net::list;
use ossc_store::pages::PageKind;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// In a plain `cargo test`; `OSSC_VERSIONS` is another number.
const VERSIONS: u64 = 5_000;
const SIZE: u64 = 5 << 20;
/// Record of the root folder.
const ROOT: u32 = 0;

struct Scene {
    folder: PathBuf,
    work: Arc<Work>,
    mirror: Mirror,
}

impl Drop for Scene {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Scene {
    fn new(name: &str, part_bytes_max: u64) -> Scene {
        Scene::in_folder(
            &std::env::temp_dir().join(format!("ossc-mirror-{}-{name}", std::process::id())),
            part_bytes_max,
        )
    }

    fn in_folder(folder: &Path, part_bytes_max: u64) -> Scene {
        let folder = folder.to_path_buf();
        std::fs::create_dir(&folder).unwrap();
        let (work, store) = (still::work(1 << 30), Store::create(Some(PageKind::Memfd), 1 << 30));
        work.region().header().memory_dev.store(store.dev().unwrap(), Ordering::Release);
        let options = MirrorOptions {
            materialize_bytes_max: 0,
            materialize_total_max: 0,
            part_bytes_max,
            start_attempts: 1,
            start_within: Duration::ZERO,
            list_attempts: 1,
            list_again: Duration::from_secs(5),
            start_quiet_max: Duration::ZERO,
        };
        let root = Root::open(&folder).unwrap();
        let mirror = Mirror::new(root, work.clone(), store, "oss://b/m/".into(), "m/".into(), options);
        let slot = mirror.append_folder("", mirror.root.id().unwrap(), 0).unwrap();
        assert_eq!(slot, ROOT);
        lock(&mirror.known).add_folder(String::new(), slot);
        work.region().object(slot).unwrap().set_state(state::LISTED);
        Scene { folder, work, mirror }
    }

    /// A listing of the root folder comes that names these objects (name, version, size).
    fn list(&self, objects: &[(&str, u64, u64)]) -> Result<HashMap<String, u32>, Failure> {
        let entry = |(name, version, size): &(&str, u64, u64)| {
            let entry = ObjectEntry {
                key: format!("m/{name}"),
                size: *size,
                etag: format!("\"{version:032X}\""),
                last_modified: (1_700_000_000, 0),
                storage_class: "Standard".into(),
                kind: list::Type::Multipart,
                restore: None,
            };
            (name.to_string(), entry)
        };
        let level = Level { objects: objects.iter().map(entry).collect(), ..Level::default() };
        self.mirror.make_real("", ROOT, Reason::Background, &level, Asked::now())?;
        let known = lock(&self.mirror.known);
        let slot = |(name, ..): &(&str, u64, u64)| Some((name.to_string(), known.object("", name)?));
        Ok(objects.iter().filter_map(slot).collect())
    }

    /// All bytes of a small object have come, or those from `at` on.
    fn arrived(&self, slot: u32, at: Option<u64>, body: &[u8]) -> Arrived {
        Arrived { slot, entry: self.work.entry(slot).unwrap(), at, body: body.to_vec() }
    }

    fn look(&self) {
        leases::look(&self.work, Some(Duration::from_secs(600)), &|| false);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn find(&self, file: &File) -> Option<u32> {
        let id = file.metadata().unwrap();
        self.work.region().find(id.dev(), id.ino()).map(|(slot, _)| slot)
    }
}

/// Descriptors and maps of this process that are of memory files and of this folder: other tests run beside this one.
fn count(folder: &Path) -> (usize, usize) {
    let is_ours = |text: &str| text.contains("/memfd:o") || text.contains(&*folder.to_string_lossy());
    let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten().map(|fd| std::fs::read_link(fd.path()));
    let descriptors = links.flatten().filter(|link| is_ours(&link.to_string_lossy())).count();
    (descriptors, std::fs::read_to_string("/proc/self/maps").unwrap().lines().filter(|line| is_ours(line)).count())
}

/// Descriptors of this process that are of this folder.
fn own(folder: &Path) -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap().flatten().map(|fd| std::fs::read_link(fd.path()));
    links.flatten().filter(|link| link.starts_with(folder) && link != folder).count()
}

/// One object is overwritten again and again under a program now and then: records, parts, descriptors, maps and memory
/// stay what a few versions take, and a version that is open stays as it is until it is closed.
#[test]
fn many_versions_cost_what_a_few_do() {
    let versions = std::env::var("OSSC_VERSIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(VERSIONS);
    let scene = Scene::new("versions", 8 << 20);
    let region = *scene.work.region();
    let mut random = Random(5);
    let mut open: Option<(File, u32, u32)> = None;
    let mut most = (0, 0, 0);
    for version in 0..versions {
        still::pass(Duration::from_millis(random.below(4000)));
        let slot = scene.list(&[("w.bin", version, SIZE)]).unwrap()["w.bin"];
        let entry = scene.work.entry(slot).unwrap();
        scene.work.residency.open_memory(slot, region.object(slot).unwrap(), &entry).unwrap();
        still::fill(&scene.work, slot);
        let memory = entry.memory.as_ref().unwrap();
        memory.populate(0, 1).unwrap();
        if let Some((file, slot, incarnation)) = &open {
            assert_eq!(scene.find(file), Some(*slot), "version {version}: an open version is not found");
            assert!(region.object(*slot).unwrap().lasts(*incarnation), "version {version}: an open version was ended");
        }
        if random.below(50) == 0 {
            open = None;
        } else if random.below(50) == 0 {
            let file = File::open(scene.path("w.bin")).unwrap();
            assert_eq!(scene.find(&file), Some(slot));
            open = Some((file, slot, region.object(slot).unwrap().seen().unwrap()));
        }
        scene.look();
        if version % 100 == 99 {
            let (fds, maps) = count(&scene.folder);
            most = (most.0.max(fds), most.1.max(maps), most.2.max(scene.work.gauges().budget_used));
        }
    }
    let newest = region.object(0).map(|root| root.state());
    assert_eq!(newest, Some(state::LISTED), "the folder's record is not a version's");
    println!("{versions} versions: {} records; most descriptors, maps, bytes: {most:?}", region.objects_len());
    assert!(region.objects_len() < 100, "{} records", region.objects_len());
    // The other tests of this file have some, too.
    assert!(most.0 > 1 && most.0 < 30 && most.1 < 20, "most descriptors, maps, bytes: {most:?}");
    assert!(most.2 <= 3 * (SIZE + (2 << 20)), "{} bytes of the budget", most.2);
}

#[test]
fn an_object_that_is_gone_loses_its_name_and_a_users_file_does_not() {
    let scene = Scene::new("gone", 8 << 20);
    scene.list(&[("a.bin", 1, SIZE), ("b.bin", 1, SIZE), ("c.bin", 1, SIZE)]).unwrap();
    let reader = File::open(scene.path("a.bin")).unwrap();
    std::fs::remove_file(scene.path("b.bin")).unwrap();
    std::fs::write(scene.path("b.bin"), "mine").unwrap();
    scene.list(&[("c.bin", 1, SIZE)]).unwrap();
    scene.look();
    assert!(!scene.path("a.bin").exists());
    assert_eq!(std::fs::read(scene.path("b.bin")).unwrap(), b"mine");
    assert!(scene.find(&reader).is_some(), "a program that has it open keeps it");
    drop(reader);
    scene.look();
    let region = scene.work.region();
    let living = (0..region.objects_len()).filter(|slot| region.object(*slot).unwrap().state() != state::GONE);
    assert_eq!(living.count(), 2, "the folder and what is left in it");
    // It comes again.
    let slot = scene.list(&[("a.bin", 2, SIZE), ("c.bin", 1, SIZE)]).unwrap()["a.bin"];
    assert_eq!(scene.find(&File::open(scene.path("a.bin")).unwrap()), Some(slot));
}

/// What becomes empty, and has bytes again, is one file of its own each time, also where it is listed twice.
#[test]
fn an_object_that_becomes_empty_is_an_empty_file() {
    let scene = Scene::new("empty", 8 << 20);
    scene.list(&[("a.bin", 1, SIZE)]).unwrap();
    scene.list(&[("a.bin", 2, 0)]).unwrap();
    let empty = File::open(scene.path("a.bin")).unwrap();
    assert_eq!(scene.find(&empty), None);
    scene.list(&[("a.bin", 2, 0)]).unwrap();
    assert_eq!(std::fs::metadata(scene.path("a.bin")).unwrap().ino(), empty.metadata().unwrap().ino());
}

/// Where all of the catalog is in use the version before stays, name and all, and the new one is had when there is room.
#[test]
fn a_full_catalog_leaves_the_version_before_in_its_place() {
    // One version takes more than half of all parts.
    let scene = Scene::new("full", 4096);
    let size = 4096 * u64::from(ossc_cache::region::PARTS_MAX / 5 * 3);
    let slot = scene.list(&[("w.bin", 1, size)]).unwrap()["w.bin"];
    let reader = File::open(scene.path("w.bin")).unwrap();
    assert!(
        scene.list(&[("w.bin", 2, size), ("x.bin", 1, SIZE)]).unwrap().contains_key("x.bin"),
        "others are not left out"
    );
    assert_eq!(std::fs::metadata(scene.path("w.bin")).unwrap().ino(), reader.metadata().unwrap().ino());
    assert_eq!(scene.find(&reader), Some(slot));
    let object = scene.work.region().object(slot).unwrap();
    assert_eq!(object.superseded.load(Ordering::Acquire), 0, "what stays is not an old version");
    // Smaller now: both have room, and the first one ends with its reader.
    let next = scene.list(&[("w.bin", 3, size / 3), ("x.bin", 1, SIZE)]).unwrap()["w.bin"];
    assert_eq!(scene.find(&File::open(scene.path("w.bin")).unwrap()), Some(next));
    assert_eq!(scene.find(&reader), Some(slot));
    drop(reader);
    let third = scene.list(&[("w.bin", 4, size), ("x.bin", 1, SIZE)]).unwrap()["w.bin"];
    let (dev, ino) = std::fs::metadata(scene.path("w.bin")).map(|file| (file.dev(), file.ino())).unwrap();
    assert_eq!(scene.work.region().find(dev, ino), Some((third, Identity::Placeholder)));
}

/// A version whose place a user has taken ends, and its record becomes another object's: listings after that leave it
/// alone, and change nothing.
#[test]
fn a_record_that_is_another_objects_now_is_left_alone() {
    let scene = Scene::new("conflict", 8 << 20);
    let first = scene.list(&[("a.bin", 1, SIZE)]).unwrap()["a.bin"];
    std::fs::remove_file(scene.path("a.bin")).unwrap();
    std::fs::write(scene.path("a.bin"), "mine").unwrap();
    let listed = scene.list(&[("a.bin", 2, SIZE)]).unwrap();
    assert!(!listed.contains_key("a.bin"), "what is not served has no record");
    scene.look();
    still::pass(Duration::from_secs(20));
    let next = scene.list(&[("a.bin", 2, SIZE), ("b.bin", 1, SIZE)]).unwrap()["b.bin"];
    assert_eq!(next, first, "this test is of a record that is used again");
    let region = scene.work.region();
    let changes = region.object(ROOT).unwrap().changes.load(Ordering::SeqCst);
    for _ in 0..2 {
        assert_eq!(scene.list(&[("a.bin", 2, SIZE), ("b.bin", 1, SIZE)]).unwrap()["b.bin"], next);
        scene.look();
    }
    let object = region.object(next).unwrap();
    assert!(!object.is_superseded() && object.state() != state::GONE, "another object's version was ended");
    assert_eq!(scene.find(&File::open(scene.path("b.bin")).unwrap()), Some(next));
    assert_eq!(region.object(ROOT).unwrap().changes.load(Ordering::SeqCst), changes, "nothing has changed");
    assert_eq!(std::fs::read(scene.path("a.bin")).unwrap(), b"mine");
}

/// A listing that fails halfway has replaced nothing that a later one could take for its own.
#[test]
fn a_listing_that_fails_halfway_is_made_real_by_the_next_one() {
    let scene = Scene::new("halfway", 4096);
    let all = 4096 * u64::from(ossc_cache::region::PARTS_MAX);
    let first = scene.list(&[("a.bin", 1, SIZE), ("b.bin", 1, SIZE)]).unwrap();
    let region = *scene.work.region();
    region.object(ROOT).unwrap().set_state(state::UNLISTED);
    assert!(scene.list(&[("a.bin", 2, all), ("b.bin", 2, all)]).is_err());
    region.object(ROOT).unwrap().set_state(state::LISTED);
    scene.look();
    still::pass(Duration::from_secs(20));
    let objects = [("0.bin", 1, SIZE), ("1.bin", 1, SIZE), ("a.bin", 3, SIZE), ("b.bin", 3, SIZE)];
    let next = scene.list(&objects).unwrap();
    assert!(first.values().any(|slot| next.values().any(|next| next == slot)), "no record was used again");
    assert_eq!(scene.list(&objects).unwrap(), next);
    for (name, slot) in &next {
        assert!(!region.object(*slot).unwrap().is_superseded(), "{name}");
        assert_eq!(scene.find(&File::open(scene.path(name)).unwrap()), Some(*slot), "{name}");
    }
}

/// Bytes of a small version that come when its record is another version's already are dropped.
#[test]
fn the_bytes_of_an_old_small_version_are_never_another_files() {
    let mut scene = Scene::new("late", 8 << 20);
    (scene.mirror.options.materialize_bytes_max, scene.mirror.options.materialize_total_max) = (100, 10_000);
    let first = scene.list(&[("a.json", 1, 5)]).unwrap()["a.json"];
    let late = scene.arrived(first, None, b"first");
    scene.list(&[("a.json", 2, 6)]).unwrap();
    scene.look();
    still::pass(Duration::from_secs(20));
    let other = scene.list(&[("a.json", 2, 6), ("b.json", 1, 5)]).unwrap()["b.json"];
    assert_eq!(other, first, "this test is of a record that is used again");
    assert!(scene.mirror.settle(&late).is_none());
    let object = scene.work.region().object(other).unwrap();
    assert_eq!((object.state(), std::fs::metadata(scene.path("b.json")).unwrap().len()), (state::COMING, 0));
    // Another length than the object's is not its bytes.
    assert!(scene.mirror.settle(&scene.arrived(other, None, b"other bytes")).is_none());
    assert_eq!((object.state(), std::fs::metadata(scene.path("b.json")).unwrap().len()), (state::FAILED, 0));
    object.set_state(state::COMING);
    assert!(scene.mirror.settle(&scene.arrived(other, None, b"other")).is_some());
    assert_eq!(std::fs::read(scene.path("b.json")).unwrap(), b"other");
    // The same name again, in the same record.
    let late = scene.arrived(other, None, b"other");
    scene.list(&[("a.json", 2, 6), ("b.json", 2, 5)]).unwrap();
    scene.look();
    still::pass(Duration::from_secs(20));
    assert_eq!(scene.list(&[("a.json", 2, 6), ("b.json", 3, 5)]).unwrap()["b.json"], other);
    assert!(scene.mirror.settle(&late).is_none());
    assert_eq!(std::fs::metadata(scene.path("b.json")).unwrap().len(), 0);
}

/// A long version that is given up or superseded while it is written leaves no file behind, and none to its successor.
#[test]
fn what_was_written_of_a_version_that_is_over_goes() {
    let mut scene = Scene::new("growing", 8 << 20);
    (scene.mirror.options.materialize_bytes_max, scene.mirror.options.materialize_total_max) = (100, 10_000);
    let first = scene.list(&[("run", 1, 9)]).unwrap()["run"];
    scene.mirror.settle(&scene.arrived(first, Some(3), b"abcdef"));
    let rest = scene.arrived(first, Some(0), b"xyz");
    assert_eq!(lock(&scene.mirror.growing).len(), 1);
    scene.work.region().object(first).unwrap().fail(libc::EIO);
    scene.mirror.settle(&rest);
    assert!(lock(&scene.mirror.growing).is_empty(), "a version that is given up is still being written");
    scene.work.region().object(first).unwrap().set_state(state::COMING);
    scene.mirror.settle(&rest);
    assert_eq!(lock(&scene.mirror.growing).len(), 1);
    let other = scene.list(&[("run", 2, 4)]).unwrap()["run"];
    assert!(lock(&scene.mirror.growing).is_empty(), "an old version is still being written");
    scene.mirror.settle(&rest);
    scene.mirror.settle(&scene.arrived(other, Some(0), b"new"));
    scene.mirror.settle(&scene.arrived(other, None, b""));
    assert_eq!(scene.work.region().object(other).unwrap().state(), state::FAILED, "a byte is missing");
    scene.work.region().object(other).unwrap().set_state(state::COMING);
    scene.mirror.settle(&scene.arrived(other, Some(0), b"new!"));
    assert!(scene.mirror.settle(&scene.arrived(other, None, b"")).is_some());
    assert_eq!(std::fs::read(scene.path("run")).unwrap(), b"new!");
    assert!(lock(&scene.mirror.growing).is_empty());
}

/// Of a file that had its object's bytes already there is a record without anything under way: it ends like others.
#[test]
fn the_record_of_a_file_that_was_there_ends() {
    let scene = Scene::new("taken", 8 << 20);
    let object = |bytes: &[u8], kind| ObjectEntry {
        key: "m/a.json".into(),
        size: bytes.len() as u64,
        etag: format!("\"{:X}\"", md5::compute(bytes)),
        last_modified: (1_700_000_000, 0),
        storage_class: "Standard".into(),
        kind,
        restore: None,
    };
    std::fs::write(scene.path("a.json"), "mine").unwrap();
    let list = |bytes: &[u8]| {
        let objects = [("a.json".to_string(), object(bytes, list::Type::Normal))].into();
        let level = Level { objects, ..Level::default() };
        scene.mirror.make_real("", ROOT, Reason::Background, &level, Asked::now()).unwrap();
        lock(&scene.mirror.known).object("", "a.json")
    };
    let slot = list(b"mine").unwrap();
    let region = scene.work.region();
    assert!(scene.work.entry(slot).is_none() && region.object(slot).unwrap().state() == state::PLACED);
    list(b"other");
    scene.look();
    assert_eq!(region.object(slot).unwrap().state(), state::GONE);
    assert_eq!(scene.find(&File::open(scene.path("a.json")).unwrap()), None);
    still::pass(Duration::from_secs(20));
    assert_eq!(scene.list(&[("b.bin", 1, SIZE)]).unwrap()["b.bin"], slot, "it was not used again");
}

impl Scene {
    /// The same on another file system, if there is one.
    fn on_tmpfs(name: &str) -> Option<Scene> {
        let above = Path::new("/dev/shm");
        above
            .is_dir()
            .then(|| Scene::in_folder(&above.join(format!("ossc-mirror-{}-{name}", std::process::id())), 8 << 20))
    }
}

/// Objects that nobody reads take no descriptor and no map, however many there are.
#[test]
fn objects_that_nobody_reads_take_no_descriptors() {
    let scene = Scene::new("many", 8 << 20);
    let names: Vec<String> = (0..3000).map(|n| format!("o{n:04}.bin")).collect();
    let objects: Vec<(&str, u64, u64)> = names.iter().map(|name| (name.as_str(), 1, SIZE)).collect();
    let slots = scene.list(&objects).unwrap();
    assert_eq!((own(&scene.folder), scene.work.gauges().memory_files), (0, 0));
    let (slot, region) = (slots["o0007.bin"], *scene.work.region());
    let object = region.object(slot).unwrap();
    let reader = File::open(scene.path("o0007.bin")).unwrap();
    assert_eq!(scene.find(&reader), Some(slot));
    scene.work.residency.open_memory(slot, object, &scene.work.entry(slot).unwrap()).unwrap();
    let ino = object.memory_ino.load(Ordering::Acquire);
    assert_eq!(region.find(region.header().memory_dev.load(Ordering::Acquire), ino), Some((slot, Identity::Memory)));
    still::fill(&scene.work, slot);
    scene.look();
    assert!(scene.work.entry(slot).unwrap().memory.as_ref().unwrap().is_open(), "a program has it open");
    drop(reader);
    for _ in 0..2 {
        scene.look();
        still::pass(Duration::from_secs(601));
    }
    scene.look();
    let entry = scene.work.entry(slot).unwrap();
    assert!(!entry.memory.as_ref().unwrap().is_open(), "nothing of it is in memory");
    assert_eq!(object.memory_ino.load(Ordering::Acquire), 0);
    assert_eq!(region.find(region.header().memory_dev.load(Ordering::Acquire), ino), None);
    // All versions again, under a program that has one of them open.
    let reader = File::open(scene.path("o0009.bin")).unwrap();
    let objects: Vec<(&str, u64, u64)> = names.iter().map(|name| (name.as_str(), 2, SIZE)).collect();
    scene.list(&objects).unwrap();
    // Of the reader's, and of the one that the engine keeps as long.
    assert_eq!((own(&scene.folder), scene.work.gauges().memory_files), (2, 0));
    assert_eq!(scene.find(&reader), Some(slots["o0009.bin"]));
    scene.look();
    assert!(region.object(slots["o0009.bin"]).unwrap().seen().is_some(), "an open version was ended");
    let ended = slots.values().filter(|slot| region.object(**slot).unwrap().seen().is_none()).count();
    assert_eq!(ended, slots.len() - 1, "versions that nobody has end at once");
    drop(reader);
    scene.look();
    assert!(region.object(slots["o0009.bin"]).unwrap().seen().is_none());
    assert_eq!(own(&scene.folder), 0);
}

/// As many memory files as may be there: those that were used longest ago give way, those in use do not.
#[test]
fn memory_files_are_bounded() {
    let scene = Scene::new("bounded", 8 << 20);
    let names: Vec<String> = (0..9).map(|n| format!("o{n}.bin")).collect();
    let objects: Vec<(&str, u64, u64)> = names.iter().map(|name| (name.as_str(), 1, SIZE)).collect();
    let slots = scene.list(&objects).unwrap();
    let region = *scene.work.region();
    let limit = scene.work.register.options.memory_files_max;
    assert!(limit >= 9, "this test sets it below");
    let open = |name: &str| {
        let slot = slots[name];
        scene.work.residency.open_memory(slot, region.object(slot).unwrap(), &scene.work.entry(slot).unwrap())
    };
    for name in &names {
        open(name).unwrap();
        still::fill(&scene.work, slots[name]);
    }
    assert_eq!(scene.work.gauges().memory_files, 9);
    scene.look();
    let readers: Vec<File> = names[..3].iter().map(|name| File::open(scene.path(name)).unwrap()).collect();
    let entry = |name: &str| scene.work.entry(slots[name]).unwrap();
    assert!(scene.work.residency.close_down_to(3, u32::MAX) > 0);
    assert_eq!(scene.work.gauges().memory_files, 3);
    assert!(names[..3].iter().all(|name| entry(name).memory.as_ref().unwrap().is_open()));
    assert_eq!(scene.work.residency.close_down_to(0, u32::MAX), 0, "programs have the others open");
    drop(readers);
    assert_eq!(scene.work.residency.close_down_to(0, u32::MAX), 3);
    open("o5.bin").unwrap();
    assert!(entry("o5.bin").memory.as_ref().unwrap().is_open());
}

/// A placeholder is removed, and its inode number goes to files of a user's: none of them is ever taken for the object,
/// or touched.
#[test]
fn a_number_that_is_used_again_is_nobodys_object() {
    for scene in [Some(Scene::new("number", 8 << 20)), Scene::on_tmpfs("number")].into_iter().flatten() {
        let slot = scene.list(&[("a.bin", 1, SIZE), ("b.bin", 1, SIZE)]).unwrap()["a.bin"];
        let object = scene.work.region().object(slot).unwrap();
        let folder = scene.mirror.root.folder("").unwrap();
        assert!(made::look(&folder, "a.bin").unwrap().is_stand_in_of(object));
        assert_ne!(object.born.load(Ordering::Acquire), 0, "this file system tells them apart");
        std::fs::remove_file(scene.path("a.bin")).unwrap();
        let mut tries = 0..20_000;
        let again = tries.find(|_| {
            let file = File::create(scene.path("a.bin")).unwrap();
            let is_again = file.metadata().unwrap().ino() == object.ino();
            if !is_again {
                std::fs::rename(scene.path("a.bin"), scene.path("keep")).unwrap();
            }
            is_again
        });
        if again.is_none() {
            // tmpfs counts on.
            continue;
        }
        assert!(!made::look(&folder, "a.bin").unwrap().is_stand_in_of(object));
        let _ = std::fs::remove_file(scene.path("keep"));
        scene.list(&[("b.bin", 1, SIZE)]).unwrap();
        assert!(scene.path("a.bin").exists(), "a user's file was removed for the object's number");
    }
}

/// A stand-in gives way to its real file, and its inode number goes to a folder that is made next: programs find the
/// folder by it, not the object.
#[test]
fn a_folder_with_the_number_of_a_stand_in_is_found() {
    let scene = Scene::new("folder", 8 << 20);
    let slot = scene.list(&[("a.bin", 1, SIZE)]).unwrap()["a.bin"];
    let region = *scene.work.region();
    let (dev, ino) = (region.object(slot).unwrap().dev(), region.object(slot).unwrap().ino());
    assert_eq!(region.find(dev, ino), Some((slot, Identity::Placeholder)));
    let folder = scene.mirror.append_folder("sub", (dev, ino), ROOT).unwrap();
    assert_eq!((region.find(dev, ino), region.find_folder(dev, ino)), (None, Some(folder)));
}

/// A folder goes, and its inode number goes to a placeholder that is made next: programs find the object by it.
#[test]
fn a_placeholder_with_the_number_of_a_folder_is_found() {
    let scene = Scene::new("of-folder", 8 << 20);
    let slot = scene.list(&[("a.bin", 1, SIZE)]).unwrap()["a.bin"];
    let region = *scene.work.region();
    let (dev, ino) = (region.object(slot).unwrap().dev(), region.object(slot).unwrap().ino());
    region.object(slot).unwrap().settled.store(1, Ordering::Release);
    let folder = scene.mirror.append_folder("sub", (dev, ino), ROOT).unwrap();
    region.object(slot).unwrap().settled.store(0, Ordering::Release);
    assert_eq!(
        (region.find(dev, ino), region.find_folder(dev, ino)),
        (Some((slot, Identity::Placeholder)), Some(folder))
    );
    region.number_is_anothers(dev, ino);
    assert_eq!((region.find(dev, ino), region.find_folder(dev, ino)), (None, None));
}

/// An object has no memory when it is looked at, and has some, which a program has mapped, when what came of the look is
/// acted on: nothing of it goes.
#[test]
fn memory_that_is_made_after_a_look_stays() {
    let scene = Scene::new("after", 8 << 20);
    let (slot, region) = (scene.list(&[("a.bin", 1, SIZE)]).unwrap()["a.bin"], *scene.work.region());
    let (object, entry) = (region.object(slot).unwrap(), scene.work.entry(slot).unwrap());
    let unused = Unused::prove(object, &entry, region.traces(object)).unwrap();
    scene.work.residency.open_memory(slot, object, &entry).unwrap();
    still::fill(&scene.work, slot);
    region.part(object, 0).pin();
    scene.list(&[("a.bin", 2, SIZE)]).unwrap();
    leases::end_version(&scene.work, (slot, object, &entry), unused);
    assert!(region.part(object, 0).is_ready() && region.part(object, 0).is_mapped());
    assert!(entry.memory.as_ref().unwrap().is_open());
    scene.look();
    assert!(region.object(slot).unwrap().seen().is_none(), "the next look ends it");
}

/// What a program looks at after it has found a name missing, in its order: whether a listing came since, and whether
/// anything is left to be listed. It looks beside the engine, at every moment of many listings.
#[test]
fn what_comes_with_a_listing_is_at_no_moment_called_absent() {
    const ROUNDS: u32 = 200;
    let scene = Scene::new("absent", 8 << 20);
    let header = scene.work.region().header();
    let at = |round: u32| format!("d{round}");
    // How often the program has said that it goes on: twice a round.
    let said = std::sync::atomic::AtomicU32::new(0);
    let spin = |until: &dyn Fn() -> bool| {
        let end = Instant::now() + Duration::from_secs(60);
        while !until() {
            assert!(Instant::now() < end, "the other thread has ended");
            std::hint::spin_loop();
        }
    };
    std::thread::scope(|scope| {
        let program = scope.spawn(|| {
            for round in 1..=ROUNDS {
                spin(&|| scene.path(&at(round)).exists());
                let is_counted = header.folders_unlisted.load(Ordering::Acquire) != 0;
                assert!(is_counted, "round {round}: the folder is there, and nothing is left to be listed");
                spin(&|| header.listings.load(Ordering::Acquire) == 2 * round - 1);
                said.fetch_add(1, Ordering::AcqRel);
                spin(&|| header.folders_unlisted.load(Ordering::Acquire) == 0);
                let listings = header.listings.load(Ordering::Acquire);
                assert_eq!(listings, 2 * round, "round {round}: all is listed, and no listing has come");
                said.fetch_add(1, Ordering::AcqRel);
            }
        });
        for round in (1..=ROUNDS).take_while(|_| !program.is_finished()) {
            let level = Level { folders: vec![at(round)], ..Level::default() };
            scene.mirror.make_real("", ROOT, Reason::Background, &level, Asked::now()).unwrap();
            spin(&|| program.is_finished() || said.load(Ordering::Acquire) == 2 * round - 1);
            let slot = lock(&scene.mirror.known).folder(&at(round)).unwrap();
            scene.mirror.make_real(&at(round), slot, Reason::Touched, &Level::default(), Asked::now()).unwrap();
            spin(&|| program.is_finished() || said.load(Ordering::Acquire) == 2 * round);
        }
    });
}
