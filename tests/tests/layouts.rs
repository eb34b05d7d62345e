//! What polletto knows of the layout of Tokio's structures, beside what the compiler says of a program that it builds here.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use object::{Object, ObjectSection};
use polletto::tokio::layout::{Build, Drivers, Layout};
use polletto_tests::program::strip;

const MANIFEST: &str = r#"[package]
name = "layout-probe"
version = "0.0.0"
edition = "2024"

[workspace]

[dependencies]
tokio = { version = "1", features = ["net", "rt-multi-thread", "time"] }

[profile.release]
debug = "full"
"#;

const PROGRAM: &str = "fn main() {
    for mut builder in [tokio::runtime::Builder::new_multi_thread(), tokio::runtime::Builder::new_current_thread()] {
        builder.build().unwrap().block_on(async { tokio::spawn(async {}).await.unwrap() });
    }
}
";

/// What reading a program of a few megabytes may take, whatever is in it.
const LIMIT: Duration = Duration::from_secs(2);

fn workspace() -> &'static Path {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own)
}

/// An optimised program with debug information and the version of Tokio that the workspace has.
struct Probe {
    path: PathBuf,
    bytes: Vec<u8>,
}

fn probe() -> &'static Probe {
    static PROBE: OnceLock<Probe> = OnceLock::new();
    PROBE.get_or_init(|| {
        let path = build();
        Probe { bytes: fs::read(&path).expect("the program was built"), path }
    })
}

fn build() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("layout-probe");
    fs::create_dir_all(folder.join("src")).expect("a directory for the program");
    fs::write(folder.join("Cargo.toml"), MANIFEST).expect("its manifest");
    fs::write(folder.join("src/main.rs"), PROGRAM).expect("its source");
    // With the same versions nothing has to be fetched.
    fs::copy(workspace().join("Cargo.lock"), folder.join("Cargo.lock")).expect("the workspace has a lock file");
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(&folder).args(["build", "--quiet", "--release", "--offline", "--target-dir", "target"]);
    cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    assert!(cargo.status().expect("cargo starts").success(), "the program is built");
    folder.join("target/release/layout-probe")
}

/// The minor version of Tokio that the workspace has.
fn minor() -> u32 {
    let lock = fs::read_to_string(workspace().join("Cargo.lock")).expect("the workspace has a lock file");
    let version = lock.split_once("name = \"tokio\"\nversion = \"1.").expect("the workspace has Tokio").1;
    version.split('.').next().and_then(|minor| minor.parse().ok()).expect("a version has a minor")
}

fn described(program: &[u8]) -> Layout {
    Layout::described_in(program).expect("it is an ELF file").expect("it has Tokio and debug information")
}

#[test]
fn the_table_has_the_layout_that_the_compiler_chose() {
    let any = Build::of_minor(minor());
    let build = Build { unstable: Some(false), parking_lot: Some(false), drivers: Some(Drivers::NetAndTime), ..any };
    let known = Layout::of(&build).expect("the table knows the version: if not, run `cargo xtask layouts`");
    let described = described(&probe().bytes);
    for ((name, known), (_, described)) in known.fields().zip(described.fields()) {
        let depends_on_the_compiler = name.starts_with("blocking_pool.");
        assert!(known == described || known.is_none() && depends_on_the_compiler, "{name}: {known:?}, {described:?}");
    }
}

#[test]
fn a_build_of_which_only_the_version_is_known_is_among_the_candidates() {
    let candidates = Layout::candidates(&Build::of_minor(minor()));
    assert!(candidates.contains(&described(&probe().bytes)), "{} candidates", candidates.len());
}

#[test]
fn debug_information_that_lies_ends_nothing_and_takes_no_time() {
    let program = &probe().bytes;
    let file = object::File::parse(&**program).expect("it is an ELF file");
    let mut random = fastrand::Rng::with_seed(7);
    for name in [".debug_info", ".debug_abbrev", ".debug_str"] {
        let (start, size) = file.section_by_name(name).and_then(|section| section.file_range()).expect(name);
        for round in 0..60 {
            let mut bytes = program.clone();
            for _ in 0..1 << (round % 12) {
                let place = usize::try_from(start + random.u64(0..size)).expect("it is in memory");
                bytes[place] = random.u8(..);
            }
            let began = Instant::now();
            // Whatever is found is as good as the file is.
            drop(Layout::described_in(&bytes));
            assert!(began.elapsed() < LIMIT, "{name} in round {round}: {:?}", began.elapsed());
        }
    }
}

#[test]
fn a_program_that_was_stripped_tells_nothing() {
    let path = &probe().path;
    let stripped = path.with_extension("stripped");
    strip(path, &stripped);
    assert_eq!(Layout::described_in(&fs::read(stripped).expect("strip wrote it")), Ok(None));
}
