//! The command line of `polletto sql`.

use std::path::PathBuf;

use clap::Args;

/// Write out the package of SQL with which trace_processor answers more about a trace
///
/// Its modules go to DIR/polletto, and what tables they have is printed, with the line to type next. They are of this
/// version of polletto, and read traces of this and of earlier ones.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  polletto sql                    to ./polletto
  polletto sql ~/perfetto         to ~/perfetto/polletto
  polletto sql ~/perfetto --force the same, after an update

Exit status: 0 when it was written; 2 when the command line can't be followed; 1 when it failed, or other files are \
there.")]
pub struct SqlArguments {
    /// Where the folder `polletto` is to be; it is made if it is not there
    #[arg(value_name = "DIR", default_value = ".")]
    pub directory: PathBuf,

    /// Overwrite files that are others
    #[arg(long)]
    pub force: bool,
}
