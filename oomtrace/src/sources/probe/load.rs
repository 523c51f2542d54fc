//! Loads programs, several at a time: the kernel checks each of the large ones for some milliseconds, and a check holds no
//! lock that another needs.

use std::{io, thread};

use aya::{
    Btf as AyaBtf, Ebpf,
    programs::{Program, ProgramError},
};

use crate::{
    host::protection,
    sources::probe::{ProbeError, error::chain},
};

/// Enough for the little that happens in user space.
const STACK_BYTES: usize = 256 << 10;

/// What a program is loaded for.
#[derive(Clone, Copy)]
pub(super) enum For<'a> {
    /// Its section says it.
    Itself,
    /// fentry or fexit of this function.
    Function(&'a str, &'a AyaBtf),
}

/// Programs that are not loaded, and why.
#[derive(Default)]
pub(super) struct Refused(Vec<(String, ProbeError)>);

impl Refused {
    /// Why this one is not loaded, if so.
    pub(super) fn take(&mut self, program: &str) -> Result<(), ProbeError> {
        let at = self.0.iter().position(|(name, _)| name == program);
        at.map_or(Ok(()), |at| Err(self.0.swap_remove(at).1))
    }
}

/// Loads the programs that `wanted` knows.
pub(super) fn all<'a>(ebpf: &mut Ebpf, wanted: impl Fn(&str) -> Option<For<'a>>) -> Refused {
    let named = ebpf.programs_mut().filter_map(|(name, program)| Some((name, program, wanted(name)?)));
    // Each thread takes memory of its own, beside what reading the object and the kernel's types left free.
    protection::release_heap();
    thread::scope(|scope| {
        let loading: Vec<_> = named
            .map(|(name, program, what)| {
                let thread = thread::Builder::new().name("oomtrace-load".into()).stack_size(STACK_BYTES);
                (name.to_owned(), thread.spawn_scoped(scope, move || one(program, what)))
            })
            .collect();
        let loaded = |thread: io::Result<thread::ScopedJoinHandle<'_, _>>| {
            let thread = thread.map_err(ProgramError::IOError)?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        let refused = loading.into_iter().filter_map(|(name, thread)| {
            let error = loaded(thread).err()?;
            Some((name.clone(), load_error(&name, &error)))
        });
        Refused(refused.collect())
    })
}

fn one(program: &mut Program, what: For<'_>) -> Result<(), ProgramError> {
    match (program, what) {
        (Program::FEntry(program), For::Function(function, btf)) => program.load(function, btf),
        (Program::FExit(program), For::Function(function, btf)) => program.load(function, btf),
        (Program::KProbe(program), For::Itself) => program.load(),
        (Program::RawTracePoint(program), For::Itself) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// Of what the kernel says.
pub(super) fn load_error(program: &str, error: &ProgramError) -> ProbeError {
    let mut verifier = false;
    let (reason, os) = match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            // The verifier's reason comes just before its statistics. The whole log would hide the message.
            let is_statistic = |line: &&str| {
                line.is_empty()
                    || ["verification time", "stack depth", "processed ", "subprog "]
                        .iter()
                        .any(|word| line.starts_with(word))
            };
            let mut tail: Vec<&str> = log.lines().rev().skip_while(is_statistic).take(2).collect();
            tail.reverse();
            verifier = !tail.is_empty();
            let log = if tail.is_empty() { String::new() } else { format!(" ({})", tail.join(" | ")) };
            (format!("{io_error}{log}"), io_error.raw_os_error())
        }
        other => chain(other),
    };
    ProbeError::Load { program: program.into(), reason, os, verifier }
}
