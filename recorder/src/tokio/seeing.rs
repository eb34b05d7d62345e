//! How the kernel programs can see what a program's threads poll.

use polletto_common::polled::RuntimeLayout;

use super::Program;
use crate::target::image::Source;

/// What can be seen of a program's threads, and why no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seeing {
    /// For the kernel programs, but for the process. None where no thread tells what it polls.
    pub layout: Option<RuntimeLayout>,
    /// Why there is none.
    pub tasks_unseen: Option<String>,
    /// Why threads don't tell which worker they are.
    pub workers_unseen: Option<String>,
}

impl Seeing {
    /// What a file allows.
    pub fn of(program: &Program, _source: &impl Source) -> Seeing {
        let task_id = match program.context.current_task_id {
            Ok(found) => found.offset,
            Err(unknown) => {
                let reason = format!("it is unknown where its threads keep what they poll: {unknown}");
                return Seeing { tasks_unseen: Some(reason), ..Seeing::default() };
            }
        };
        let layout = RuntimeLayout { task_id, ..RuntimeLayout::default() };
        Seeing { layout: Some(layout), workers_unseen: Some("its layout is unknown".to_owned()), ..Seeing::default() }
    }
}
