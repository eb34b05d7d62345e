//! How the stacks of a file's code are unwound, as tables that the kernel programs can search.
//!
//! Compilers leave next to the code what exceptions are thrown by: `.eh_frame`, a program for every function that says
//! where its caller's registers are at each instruction. A [`Table`] is the outcome of all these programs, in the formats
//! of [`polletto_common::unwind`]. It is made in steps, each in a file of its own:
//!
//! 1. `cfi` runs the functions' programs, one by one;
//! 2. `rule` (with `x86_64`, `aarch64`) puts each of their rows into a [`Rule`], and numbers the different ones;
//! 3. `unsaid` (with `heights`) adds what instructions tell where nothing is said, as of musl's functions;
//! 4. `flatten` makes one sorted list of all functions, with what lies between them;
//! 5. `pages` cuts that list into pages.
//!
//! [`Cache`] keeps tables on disk, and [`build_all`] makes those of many files at once. [`Bounds`] tells no more than where
//! functions begin and end.
//!
//! The files belong to others and may lie: whatever they hold takes bounded memory and time that grows with their size.
//! A function that can't be understood is left out and counted in [`Omissions`].

mod aarch64;
mod bounds;
mod cache;
mod cfi;
mod flatten;
mod format;
mod heights;
mod pages;
mod parallel;
mod rule;
#[cfg(test)]
mod tests;
mod unsaid;
mod x86_64;

use std::{error, fmt, ops::Range};

use polletto_common::unwind::{PAGE_BYTES, Page, Row, Rule};

use self::unsaid::Unsaid;
use crate::target::image::{Architecture, Image, ImageError, Source};

pub use bounds::Bounds;
pub use cache::Cache;
pub use parallel::build_all;

/// Pages that a table can have: a gigabyte of code, holes included.
pub const MAX_PAGES: u64 = 1 << 22;

/// How the stacks of a file's code are unwound.
///
/// Every page has a row for its first address, and rows of a page stand in the order of their addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// The file's own address of the first page, divided by [`PAGE_BYTES`].
    pub first_page: u64,
    /// Page by page, without a hole.
    pub pages: Vec<Page>,
    /// The rows of all pages. Their rules are indices into `rules`.
    pub rows: Vec<Row>,
    /// The different rules. The first one says that nothing is known.
    pub rules: Vec<Rule>,
    /// What the table does not tell though the file does.
    pub omissions: Omissions,
}

/// What a table does not tell though the file does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Omissions {
    /// Functions whose unwind information can't be understood.
    pub broken: u64,
    /// Functions without a single address: of code that the linker threw away, mostly.
    pub empty: u64,
    /// Functions that lie outside of the file's code.
    pub outside: u64,
    /// Rows that no [`Rule`] can say.
    pub unsupported: u64,
    /// Rows whose rule is one too many.
    pub excess: u64,
    /// Pages with more rows than can be counted. Nothing is known of their addresses.
    pub crowded_pages: u64,
}

/// Why a file has no table.
#[derive(Debug)]
pub enum Error {
    /// The file can't be read.
    Image(ImageError),
    /// Its code lies too far apart: from the first address to the last it is this many bytes.
    TooFarApart(u64),
    /// It has more rows than a table can have.
    TooManyRows,
    /// Its unwind information takes far more work than any compiler's of this size.
    TooMuchWork,
}

impl Table {
    /// Makes the table of a file.
    pub fn build(image: &Image, source: &(impl Source + ?Sized)) -> Result<Table, Error> {
        let eh_frame = image.read_eh_frame(source)?;
        Table::from_parts(image, &eh_frame, &Unsaid::read(image, source, &eh_frame)?)
    }

    /// Makes the table of what a file's `.eh_frame` says, which is read already.
    pub fn from_eh_frame(image: &Image, eh_frame: &[u8]) -> Result<Table, Error> {
        Table::from_parts(image, eh_frame, &Unsaid::default())
    }

    fn from_parts(image: &Image, eh_frame: &[u8], unsaid: &Unsaid) -> Result<Table, Error> {
        match image.architecture {
            Architecture::X86_64 => Table::of::<x86_64::X86_64>(image, eh_frame, unsaid),
            Architecture::Aarch64 => Table::of::<aarch64::Aarch64>(image, eh_frame, unsaid),
        }
    }

    fn of<C: rule::Cpu>(image: &Image, eh_frame: &[u8], unsaid: &Unsaid) -> Result<Table, Error> {
        let code = cfi::Code::of(image)?;
        let (mut rules, mut omissions) = (rule::Rules::default(), Omissions::default());
        let mut functions = cfi::functions::<C>(image, eh_frame, &code, &mut rules, &mut omissions)?;
        unsaid.add_to(&mut functions, &code, &mut rules);
        let linkage_rule = rules.index(C::linkage_rule());
        let linkage_tables = image.linkage_tables.iter().filter_map(|table| code.clip(table));
        let flat = flatten::flatten(functions, linkage_tables.collect(), linkage_rule);
        let pages = pages::cut(&flat)?;
        omissions.excess = rules.refused();
        omissions.crowded_pages = pages.crowded;
        Ok(Table {
            first_page: code.base() / PAGE_BYTES + u64::from(pages.first),
            pages: pages.pages,
            rows: pages.rows,
            rules: rules.into_list(),
            omissions,
        })
    }

    /// The file's own addresses that the table covers.
    pub fn addresses(&self) -> Range<u64> {
        let address = |page: u64| page.saturating_mul(PAGE_BYTES);
        address(self.first_page)..address(self.first_page + self.pages.len() as u64)
    }

    /// What the table says about one of the file's own addresses: the very search that the kernel programs do. `None`
    /// outside of [`Table::addresses`].
    pub fn rule(&self, address: u64) -> Option<Rule> {
        let page = self.pages.get(usize::try_from((address / PAGE_BYTES).checked_sub(self.first_page)?).ok()?)?;
        let rows = self.rows.get(page.first_row() as usize..)?.get(..page.rows() as usize)?;
        let behind = rows.partition_point(|row| u64::from(row.address()) <= address % PAGE_BYTES);
        self.rules.get(rows.get(behind.checked_sub(1)?)?.rule() as usize).copied()
    }
}

impl From<ImageError> for Error {
    fn from(error: ImageError) -> Error {
        Error::Image(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Image(error) => error.fmt(out),
            Error::TooFarApart(bytes) => {
                write!(out, "its code reaches over {bytes} bytes, and a table over {}", MAX_PAGES * PAGE_BYTES)
            }
            Error::TooManyRows => write!(out, "its unwind information has more than {} rows", Page::MAX_FIRST_ROW),
            Error::TooMuchWork => write!(out, "its unwind information is too intricate to be a compiler's"),
        }
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        match self {
            // Its own text stands for it already.
            Error::Image(error) => error.source(),
            _ => None,
        }
    }
}
