//! Layouts of programs without debug information, by the version of Tokio that they were built with.

use std::sync::LazyLock;

use super::{Layout, fields::FIELDS};

/// Written by `cargo xtask layouts`.
const TEXT: &str = include_str!("tokio-layouts.txt");

/// What is known of how a program's Tokio was built, without debug assertions. None is what is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Build {
    /// Of version 1.
    pub minor: u32,
    /// Whether with `--cfg tokio_unstable`. Since 1.46 a task's vtable tells it.
    pub unstable: Option<bool>,
    /// Whether with the feature `parking_lot`, which `full` contains.
    pub parking_lot: Option<bool>,
    /// With which features that wait for something.
    pub drivers: Option<Drivers>,
    /// By which compiler: the minor of its version 1.
    pub rustc: Option<u32>,
}

/// Compilers with which the blocking pool is where the table says. The standard library's threads, which it holds, grew and
/// shrank: with 1.85 it is elsewhere. Nothing else was seen to depend on the compiler.
pub const COMPILERS: [u32; 3] = [75, 95, 97];

/// What a runtime can wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drivers {
    /// Nothing but its tasks.
    None,
    /// Connections and time: `net`, `time`.
    NetAndTime,
    /// Signals as well, or processes: `signal`, `process`.
    SignalsToo,
}

/// A set of features that makes a difference.
struct Features {
    name: &'static str,
    parking_lot: bool,
    drivers: Drivers,
}

/// The most usual ones first.
const FEATURES: [Features; 4] = [
    Features { name: "full", parking_lot: true, drivers: Drivers::SignalsToo },
    Features { name: "net", parking_lot: false, drivers: Drivers::NetAndTime },
    Features { name: "signal", parking_lot: false, drivers: Drivers::SignalsToo },
    Features { name: "bare", parking_lot: false, drivers: Drivers::None },
];

impl Build {
    /// A build of which only the version is known.
    pub fn of_minor(minor: u32) -> Build {
        Build { minor, unstable: None, parking_lot: None, drivers: None, rustc: None }
    }

    fn may_be(&self, section: &Section, features: &Features) -> bool {
        fn agree<T: PartialEq>(known: Option<T>, other: T) -> bool {
            known.is_none_or(|known| known == other)
        }
        section.minors.contains(&self.minor)
            && agree(self.unstable, section.is_unstable)
            && agree(self.parking_lot, features.parking_lot)
            && agree(self.drivers, features.drivers)
    }
}

/// All layouts that are known.
#[derive(Debug, Default)]
pub struct Table(Vec<Section>);

/// Layouts of several versions between which nothing changed.
#[derive(Debug)]
struct Section {
    minors: Vec<u32>,
    /// Built with `--cfg tokio_unstable`.
    is_unstable: bool,
    /// For each set of features.
    layouts: [Layout; FEATURES.len()],
}

/// The table that this program has.
pub fn known() -> &'static Table {
    // A test reads it: there is no error.
    static TABLE: LazyLock<Table> = LazyLock::new(|| Table::parse(TEXT).unwrap_or_default());
    &TABLE
}

impl Table {
    /// Reads what `cargo xtask layouts` wrote.
    fn parse(text: &str) -> Result<Table, String> {
        let mut sections: Vec<Section> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let explain = |problem: &str| format!("line {number}: {problem}: {line:?}");
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(title) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                sections.push(Section::of(title).ok_or_else(|| explain("not a list of versions"))?);
                continue;
            }
            let section = sections.last_mut().ok_or_else(|| explain("no version stands above"))?;
            section.learn(line).ok_or_else(|| explain("not a field with its numbers"))?;
        }
        Ok(Table(sections))
    }

    pub fn candidates(&self, build: &Build) -> Vec<Layout> {
        let mut candidates: Vec<Layout> = Vec::new();
        for section in &self.0 {
            for (features, layout) in FEATURES.iter().zip(&section.layouts) {
                if build.may_be(section, features) && !candidates.contains(layout) {
                    candidates.push(layout.clone());
                }
            }
        }
        candidates
    }
}

impl Section {
    /// `1.38 1.39 1.40`, `1.41 tokio_unstable`
    fn of(title: &str) -> Option<Section> {
        let words: Vec<&str> = title.split_whitespace().collect();
        let (versions, is_unstable) = match words.split_last()? {
            (&"tokio_unstable", versions) => (versions, true),
            _ => (&words[..], false),
        };
        let minors = versions.iter().map(|version| version.strip_prefix("1.")?.parse().ok());
        Some(Section { minors: minors.collect::<Option<_>>()?, is_unstable, layouts: Default::default() })
    }

    /// `context.size 80`, or `multi_thread.blocking_pool full=904 net=720`, where nothing is known of other features.
    fn learn(&mut self, line: &str) -> Option<()> {
        let (name, numbers) = line.split_once(' ')?;
        let field = FIELDS.iter().find(|field| field.name == name)?;
        if let Ok(number) = numbers.trim().parse() {
            self.layouts.iter_mut().for_each(|layout| (field.set)(layout, Some(number)));
            return Some(());
        }
        for one in numbers.split_whitespace() {
            let (features, number) = one.split_once('=')?;
            let index = FEATURES.iter().position(|known| known.name == features)?;
            (field.set)(&mut self.layouts[index], Some(number.parse().ok()?));
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "
        # Of these versions little is known.
        [1.38 1.39]
        context.size 80
        multi_thread.blocking_pool full=904 net=816

        [1.40]
        context.size 72

        [1.38 tokio_unstable]
        context.size 80
        multi_thread.blocking_pool 1056
    ";

    fn sizes(build: Build) -> Vec<(Option<u32>, Option<u32>)> {
        let candidates = Table::parse(SMALL).unwrap().candidates(&build);
        candidates.iter().map(|layout| (layout.context.size, layout.multi_thread.blocking_pool)).collect()
    }

    #[test]
    fn what_is_not_known_of_a_build_leaves_several_layouts() {
        let any = Build::of_minor(38);
        let stable = Build { unstable: Some(false), ..any };
        let net = Build { drivers: Some(Drivers::NetAndTime), ..stable };
        assert_eq!(
            sizes(any),
            [(Some(80), Some(904)), (Some(80), Some(816)), (Some(80), None), (Some(80), Some(1056))]
        );
        assert_eq!(sizes(stable), [(Some(80), Some(904)), (Some(80), Some(816)), (Some(80), None)]);
        assert_eq!(sizes(net), [(Some(80), Some(816))]);
        assert_eq!(sizes(Build { parking_lot: Some(true), ..stable }), [(Some(80), Some(904))]);
    }

    #[test]
    fn a_version_that_is_not_in_the_table_has_no_layout() {
        assert_eq!(sizes(Build::of_minor(37)), []);
        assert_eq!(sizes(Build::of_minor(41)), []);
        assert_eq!(Layout::of(&Build::of_minor(u32::MAX)), None);
    }

    #[test]
    fn what_differs_between_the_layouts_of_a_build_is_not_known() {
        for minor in 38..=54 {
            let build = Build { minor, unstable: Some(false), parking_lot: None, drivers: None, rustc: None };
            let agreed = Layout::of(&build).unwrap();
            assert!(agreed.context.current_task_id.is_some() && agreed.multi_thread.tasks.is_some(), "1.{minor}");
            assert_eq!(agreed.blocking_pool.threads, None, "1.{minor}: it depends on parking_lot");
            assert_eq!(agreed.multi_thread.blocking_pool, None, "1.{minor}: it depends on the drivers");
            let with_parking_lot = Build { parking_lot: Some(true), ..build };
            let pool = |rustc| Layout::of(&Build { rustc, ..with_parking_lot }).unwrap().blocking_pool.threads;
            assert!(pool(Some(95)).is_some(), "1.{minor}");
            assert_eq!([pool(Some(85)), pool(None)], [None; 2], "1.{minor}: it depends on the compiler");
        }
    }

    #[test]
    fn each_version_stands_in_the_table_once_with_all_features() {
        let table = Table::parse(TEXT).unwrap();
        for minor in 38..=54 {
            for is_unstable in [false, true] {
                let of = |section: &&Section| section.minors.contains(&minor) && section.is_unstable == is_unstable;
                let sections: Vec<_> = table.0.iter().filter(of).collect();
                let [section] = &sections[..] else { panic!("1.{minor}: {} sections", sections.len()) };
                assert!(section.layouts.iter().all(Layout::knows_every_part), "1.{minor}: {section:?}");
            }
        }
    }

    #[test]
    fn a_line_that_is_damaged_is_told() {
        for text in ["context.size 8", "[1.38]\nnothing 8", "[1.38]\ncontext.size", "[1.38]\ncontext.size a=8", "[2.1]"]
        {
            let problem = Table::parse(text).unwrap_err();
            assert!(problem.starts_with("line "), "{problem}");
        }
    }
}
