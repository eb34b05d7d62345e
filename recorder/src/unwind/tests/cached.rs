//! Tables on disk.

use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime},
};

use super::written::*;
use crate::{
    target::image::{Image, example::ExampleElf},
    unwind::{Cache, Table, build_all, cache::directory_by},
};

/// A directory of a test's own, removed at its end.
struct Directory(PathBuf);

impl Directory {
    fn new(test: &str) -> Directory {
        let path = std::env::temp_dir().join(format!("polletto-unwind-{test}-{}", std::process::id()));
        fs::remove_dir_all(&path).ok();
        Directory(path)
    }

    fn cache(&self) -> Cache {
        Cache::open(Some(self.0.clone()))
    }

    fn files(&self) -> Vec<PathBuf> {
        fs::read_dir(&self.0).map_or(Vec::new(), |entries| entries.map(|entry| entry.unwrap().path()).collect())
    }

    fn only_file(&self) -> PathBuf {
        let files = self.files();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }

    fn bytes(&self) -> u64 {
        self.files().iter().map(|file| file.metadata().unwrap().len()).sum()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// A file of which nobody else has the same.
fn example(number: u8) -> (Image, Vec<u8>) {
    let bytes = with_eh_frame(ExampleElf::default(), |written, code| {
        let common = written.common_x86_64();
        written.function(common, code..code + 0x80, &[advance(number), cfa_offset(16)].concat());
    })
    .bytes();
    (Image::read(&bytes[..]).unwrap(), bytes)
}

fn table(cache: &Cache, (image, bytes): &(Image, Vec<u8>)) -> Table {
    cache.table(image, &bytes[..]).unwrap()
}

fn modified(path: &Path) -> SystemTime {
    path.metadata().unwrap().modified().unwrap()
}

fn set_modified(path: &Path, time: SystemTime) {
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

#[test]
fn tables_are_kept_where_caches_are() {
    for (xdg, home, expected) in [
        (Some("/x"), Some("/h"), Some("/x/polletto/unwind")),
        (None, Some("/h"), Some("/h/.cache/polletto/unwind")),
        (Some(""), Some("/h"), Some("/h/.cache/polletto/unwind")),
        (Some("relative"), Some("/h"), Some("/h/.cache/polletto/unwind")),
        (Some("/x"), None, Some("/x/polletto/unwind")),
        (None, None, None),
        (None, Some("relative"), None),
    ] {
        let found = directory_by(|name| if name == "HOME" { home } else { xdg }.map(Into::into));
        assert_eq!(found, expected.map(PathBuf::from), "{xdg:?}, {home:?}");
    }
}

#[test]
fn a_table_is_kept_private_and_found_again() {
    let directory = Directory::new("kept");
    let example = example(1);
    let built = Table::build(&example.0, &example.1[..]).unwrap();
    assert_eq!(table(&directory.cache(), &example), built);
    let file = directory.only_file();
    assert_eq!(file.metadata().unwrap().mode() & 0o7777, 0o600);
    assert_eq!(directory.0.metadata().unwrap().mode() & 0o7777, 0o700);
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    assert!(name.starts_with(&"ab".repeat(20)) && name.ends_with(".table"), "{name}");
    let written = file.metadata().unwrap().ino();
    assert_eq!(table(&directory.cache(), &example), built);
    assert_eq!(directory.only_file().metadata().unwrap().ino(), written);
}

#[test]
fn files_of_the_same_build_id_have_tables_of_their_own() {
    let directory = Directory::new("liars");
    let cache = directory.cache();
    let [honest, liar] = [1, 2].map(example);
    assert_eq!(honest.0.build_id, liar.0.build_id);
    assert_ne!(table(&cache, &honest), table(&cache, &liar));
    assert_eq!(directory.files().len(), 2);
    let mut moved = honest.clone();
    moved.0.segments[1].file_size -= 1;
    moved.0.build_id = None;
    table(&cache, &moved);
    assert_eq!(directory.files().len(), 3);
    assert!(directory.files().iter().any(|file| file.to_str().unwrap().contains("/no-build-id-")));
}

#[test]
fn a_file_that_was_damaged_cut_or_swapped_is_written_anew() {
    let directory = Directory::new("damaged");
    let cache = directory.cache();
    let (first, second) = (example(1), example(2));
    let expected = table(&cache, &first);
    let file = directory.only_file();
    let good = fs::read(&file).unwrap();
    table(&cache, &second);
    let other = directory.files().into_iter().find(|path| *path != file).unwrap();
    let mut damaged = good.clone();
    damaged[good.len() / 2] ^= 1;
    for bytes in [&damaged, &good[..good.len() - 1], b"", &fs::read(other).unwrap()] {
        fs::write(&file, bytes).unwrap();
        assert_eq!(table(&cache, &first), expected);
        assert_eq!(fs::read(&file).unwrap(), good);
    }
}

#[test]
fn a_link_in_the_place_of_a_table_is_not_followed() {
    let directory = Directory::new("link");
    let cache = directory.cache();
    let example = example(1);
    let expected = table(&cache, &example);
    let file = directory.only_file();
    let elsewhere = directory.0.join("elsewhere");
    fs::rename(&file, &elsewhere).unwrap();
    let before = modified(&elsewhere);
    symlink(&elsewhere, &file).unwrap();
    assert_eq!(table(&cache, &example), expected);
    assert!(!file.is_symlink());
    assert_eq!(modified(&elsewhere), before);
    // Nor is one in the place of the directory.
    let link = directory.0.join("link");
    symlink(&directory.0, &link).unwrap();
    fs::remove_file(&file).unwrap();
    table(&Cache::open(Some(link)), &example);
    assert!(!file.exists());
}

#[test]
fn a_directory_that_others_can_write_to_is_not_used() {
    let directory = Directory::new("shared");
    fs::create_dir(&directory.0).unwrap();
    for mode in [0o777, 0o770, 0o702] {
        fs::set_permissions(&directory.0, PermissionsExt::from_mode(mode)).unwrap();
        table(&directory.cache(), &example(1));
        assert!(directory.files().is_empty(), "{mode:o}");
    }
}

#[test]
fn without_a_directory_tables_are_made_all_the_same() {
    let expected = table(&Cache::open(None), &example(1));
    for path in ["/proc/polletto", "/dev/null", "/dev/null/polletto"] {
        assert_eq!(table(&Cache::open(Some(path.into())), &example(1)), expected, "{path}");
    }
}

#[test]
fn many_recorders_can_use_a_directory_at_the_same_time() {
    let directory = Directory::new("many");
    let examples: Vec<_> = (1..=8).map(example).collect();
    let expected: Vec<Table> = examples.iter().map(|example| table(&Cache::open(None), example)).collect();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..10 {
                    let cache = directory.cache();
                    for (example, expected) in examples.iter().zip(&expected) {
                        assert_eq!(table(&cache, example), *expected);
                    }
                }
            });
        }
    });
    assert_eq!(directory.files().len(), 8);
}

#[test]
fn what_was_not_used_for_the_longest_time_goes_first() {
    let directory = Directory::new("full");
    let cache = directory.cache();
    table(&cache, &example(1));
    let (first, size) = (directory.only_file(), directory.bytes());
    let long_ago = |hours: u64| SystemTime::now() - Duration::from_secs(3600 * hours);
    table(&cache, &example(2));
    let second = directory.files().into_iter().find(|path| *path != first).unwrap();
    set_modified(&first, long_ago(9));
    set_modified(&second, long_ago(8));
    // The first one is used again, so it is the second one's turn.
    let small = Cache::with_limit(Some(directory.0.clone()), 2 * size);
    table(&small, &example(1));
    assert!(modified(&first) > long_ago(1));
    table(&small, &example(3));
    assert!(first.exists() && !second.exists());
    // What a recorder that died has left goes too; what is nobody's stays.
    let (left, foreign) = (directory.0.join("left.tmp"), directory.0.join("foreign"));
    for path in [&left, &foreign] {
        fs::write(path, vec![0; 10]).unwrap();
        set_modified(path, long_ago(100));
    }
    for number in 4..20 {
        table(&small, &example(number));
        assert!(directory.bytes() <= 2 * size + 10);
    }
    assert!(!left.exists() && foreign.exists());
    // A table that is larger than all may be together is not kept.
    let tiny = Cache::with_limit(Some(directory.0.clone()), size - 1);
    let before = directory.files();
    table(&tiny, &example(50));
    assert_eq!(directory.files(), before);
}

#[test]
fn tables_of_many_files_come_in_their_order() {
    let directory = Directory::new("parallel");
    let cache = directory.cache();
    let files = ["/bin/bash", "/bin/cat", "/proc/self/exe", "/bin/cat"].map(|path| {
        let file = File::open(path).unwrap();
        (Image::read(&file).unwrap(), file)
    });
    let files = files.each_ref().map(|(image, file)| (image, file));
    let expected = files.map(|(image, file)| Table::build(image, file).unwrap());
    for _ in 0..2 {
        let tables: Vec<Table> = build_all(&cache, &files).into_iter().map(Result::unwrap).collect();
        assert!(tables == expected);
    }
    assert!(build_all::<File>(&cache, &[]).is_empty());
}

#[test]
fn a_file_that_cannot_be_understood_is_an_error_of_its_own() {
    let good = example(1);
    let mut cut = good.clone();
    cut.1.truncate(0x1000);
    let tables = build_all(&Cache::open(None), &[&good, &cut, &good].map(|(image, bytes)| (image, bytes)));
    assert_eq!(tables.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(tables[1].as_ref().unwrap_err().to_string(), "the file ends before .eh_frame does");
}
