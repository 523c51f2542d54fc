//! Signals that end processes and are not the OOM killer's: who sent them, how, and how full the target's cgroup was.
//!
//! The sender is the calling task. Many signals at a time make one record a second: of each sender, way and cgroup.

use core::ptr;

use aya_ebpf::helpers::{
    bpf_ktime_get_boot_ns,
    generated::{bpf_get_current_comm, bpf_get_current_task, bpf_get_current_uid_gid},
};
use oomtrace_common::{
    counter,
    layout::{ABSENT, FOLLOW_FROM_OUTSIDE},
    record::{
        EXECUTABLE_NAME_LEN, HOW_CGROUP_KILL, HOW_KERNEL, HOW_KILL, HOW_PID_NAMESPACE_ENDED, HOW_TGKILL,
        HOW_UNKNOWN, Header, KIND_SIGNAL_KILL, MemcgLevel, SIGNAL_GROUP_NS, SIGNAL_LEVELS, SIGTERM,
        SignalGroup, SignalKey, SignalKill, Sigterm,
    },
};

use crate::{
    maps::{self, Forgetful},
    memcg,
    memory::{Reader, layout},
    task,
};

/// What `signal_generate` says of a signal.
#[derive(Clone, Copy)]
pub struct Generated {
    /// The signal's information: a pointer, or one of `SEND_SIG_*`.
    pub info: u64,
    /// The task it is for.
    pub task: u64,
    /// 0 if it is for that thread alone.
    pub group: u32,
    /// What became of it.
    pub result: u32,
}

/// `SEND_SIG_NOINFO`.
const NO_INFO: u64 = 0;
/// `SEND_SIG_PRIV`: the kernel's own.
const PRIV: u64 = 1;

impl Generated {
    /// Whether the process gets it. One that is ignored, or that it has already, ends nobody.
    #[inline(always)]
    fn arrives(&self) -> bool {
        // `TRACE_SIGNAL_DELIVERED`; `TRACE_SIGNAL_LOSE_INFO`.
        self.result == 0 || self.result == 4
    }
}

/// [`Generated::how`] and [`Generated::sigterm`] of what is not reported: no `HOW_*`.
const NOT_REPORTED: u32 = 0;

/// A SIGKILL, or a SIGTERM.
#[inline(always)]
pub fn signal(signal: u32, of: Generated) {
    if layout!(follow_kills) == ABSENT {
        return;
    }
    let Some(place) = Forgetful::of_this_cpu() else { return };
    let mut reader = Reader::default();
    let how = if signal == SIGTERM { of.sigterm(&mut reader) } else { of.how(&mut reader) };
    // To the verifier, all ways to here are one from here on: it goes through what follows once.
    let what = place.forgotten(how | (signal << 8));
    let (how, signal) = (what & 0xff, what >> 8);
    if how != NOT_REPORTED {
        report(&of, signal, how, place);
    }
}

impl Generated {
    /// Notes a SIGTERM, also one that is ignored, for a SIGKILL may follow. It is reported where the sender may be a killer
    /// that begins with it.
    #[inline(always)]
    fn sigterm(&self, reader: &mut Reader) -> u32 {
        let tgid = reader.u32(self.task, layout!(task_tgid));
        let start_ns = started(reader, self.task);
        // SAFETY: the helpers take no argument, or a place of so many bytes.
        let note = unsafe {
            let mut sender_comm = [0; 16];
            bpf_get_current_comm(sender_comm.as_mut_ptr().cast(), 16);
            Sigterm {
                start_ns,
                sent_ns: bpf_ktime_get_boot_ns(),
                sender_tgid: (maps::caller() >> 32) as u32,
                sender_uid: bpf_get_current_uid_gid() as u32,
                sender_comm,
            }
        };
        // Without it, a later SIGKILL has no SIGTERM before it that is known.
        let _noted = maps::SIGTERMS.insert(tgid, note, 0);
        if self.arrives() && is_killers(reader) { HOW_KILL } else { NOT_REPORTED }
    }

    /// How a SIGKILL was sent.
    #[inline(always)]
    fn how(&self, reader: &mut Reader) -> u32 {
        if !self.arrives() {
            return NOT_REPORTED;
        }
        match self.info {
            // `cgroup.kill` sends it to one thread of each process.
            NO_INFO if self.group & 0xff == 0 => HOW_CGROUP_KILL,
            // What `kill(2)` passes since 7.3; the kernel itself makes the same of both.
            NO_INFO => HOW_KILL,
            PRIV => of_the_kernel(reader, self.task),
            info => self.by_code(reader, info),
        }
    }

    /// By `si_code`, which a sender can set to one of the kernel's only in a signal to itself.
    #[inline(always)]
    fn by_code(&self, reader: &mut Reader, info: u64) -> u32 {
        /// `offsetof(siginfo_t, si_code)`.
        const SI_CODE: u32 = 8;
        const SI_TKILL: i32 = -6;
        let code = reader.u32(info, SI_CODE) as i32;
        if code > 0 {
            let to_itself = reader.u32(self.task, layout!(task_tgid)) == (maps::caller() >> 32) as u32;
            return if to_itself { HOW_UNKNOWN } else { HOW_KERNEL };
        }
        if code == SI_TKILL && self.group & 0xff == 0 { HOW_TGKILL } else { HOW_KILL }
    }
}

/// Why the kernel itself sent it; nothing if that may have been the OOM killer.
///
/// The killer holds its victim's `task_lock` when it sends its signal. To those who share the victim's memory it sends
/// it after the mark.
#[inline(always)]
fn of_the_kernel(reader: &mut Reader, task: u64) -> u32 {
    let lock = layout!(task_alloc_lock);
    if lock != ABSENT && reader.u32(task, lock) != 0 {
        return NOT_REPORTED;
    }
    if let Some(run) = maps::RUN.get_ptr(0) {
        let mm = reader.pointer(task, layout!(task_mm));
        // SAFETY: a pointer into the map, checked for NULL; whole integers.
        let (marked_by, victim_mm) = unsafe { ((*run).marked_by, (*run).victim_mm) };
        if marked_by == maps::caller() && (mm == 0 || mm == victim_mm) {
            return NOT_REPORTED;
        }
    }
    if task::is_exiting(reader) && is_first(reader, current()) {
        return HOW_PID_NAMESPACE_ENDED;
    }
    // Where the lock cannot be seen, all else may be the killer's.
    if lock == ABSENT { NOT_REPORTED } else { HOW_KERNEL }
}

/// The first process of its pid namespace. (That of the host cannot be killed.)
#[inline(always)]
fn is_first(reader: &mut Reader, task: u64) -> bool {
    let signal = reader.pointer(task, layout!(task_signal));
    let mut namespace_tgid = 0u32;
    // A failed read leaves 0. To ask whether it failed would be a branch, of which the verifier follows both ways to the end.
    // SAFETY: a local of an integer.
    unsafe { task::namespace_tgid(reader, &raw mut namespace_tgid, signal) };
    namespace_tgid == 1
}

/// Whether the sender's cgroup has the name of a killer's unit that sends SIGTERM first. Who it really is, user space
/// decides.
#[inline(always)]
fn is_killers(reader: &mut Reader) -> bool {
    const EARLYOOM: [u64; 3] = [word(b"earlyoom"), word(b".service"), 0];
    const NOHANG: [u64; 3] = [word(b"nohang.s"), word(b"ervice\0\0"), 0];
    const NOHANG_DESKTOP: [u64; 3] = [word(b"nohang-d"), word(b"esktop.s"), word(b"ervice\0\0")];
    let css_set = reader.pointer(current(), layout!(task_cgroups));
    let css = reader.pointer(css_set, layout!(css_set_memory));
    let cgroup = reader.pointer(css, layout!(css_cgroup));
    let kn = reader.pointer(cgroup, layout!(cgroup_kn));
    let name = reader.pointer(kn, layout!(kernfs_name));
    let mut text = [0u64; 3];
    // SAFETY: a local of so many bytes.
    unsafe { reader.string(text.as_mut_ptr().cast(), 24, name) };
    let is = |unit: &[u64; 3]| text[0] == unit[0] && text[1] == unit[1] && text[2] == unit[2];
    is(&EARLYOOM) || is(&NOHANG) || is(&NOHANG_DESKTOP)
}

const fn word(text: &[u8; 8]) -> u64 {
    u64::from_ne_bytes(*text)
}

#[inline(always)]
fn current() -> u64 {
    // SAFETY: the helper takes no argument.
    unsafe { bpf_get_current_task() }
}

/// When the process of `task` started.
#[inline(always)]
fn started(reader: &mut Reader, task: u64) -> u64 {
    let leader = reader.pointer(task, layout!(task_group_leader));
    reader.u64(leader, layout!(task_start_boottime))
}

/// Counts the signal in its group, and sends a record if it is the first.
#[inline(always)]
fn report(of: &Generated, signal: u32, how: u32, place: Forgetful) {
    /// `PF_KTHREAD`.
    const KERNEL_THREAD: u32 = 0x0020_0000;
    let mut reader = Reader::default();
    let process = reader.pointer(of.task, layout!(task_signal));
    let no_process = reader.u32(of.task, layout!(task_flags)) & KERNEL_THREAD != 0;
    let live = layout!(signal_live);
    let ended = live != ABSENT && reader.u32(process, live) == 0;
    if no_process || ended {
        return;
    }
    // Without a branch: 1 of SIGKILL, 0 of SIGTERM.
    maps::count(counter::SIGKILLED, u64::from((signal >> 1) & 1) ^ 1);
    let css_set = reader.pointer(of.task, layout!(task_cgroups));
    let css = reader.pointer(css_set, layout!(css_set_memory));
    let mut cgroup_id = 0u64;
    // SAFETY: a local of an integer.
    unsafe { memcg::id(&mut reader, &raw mut cgroup_id, css) };
    let first_process = u32::from(is_first(&mut reader, of.task));
    if layout!(follow_kills) == FOLLOW_FROM_OUTSIDE {
        let senders = reader.pointer(current(), layout!(task_cgroups));
        let from_inside = css != 0 && reader.pointer(senders, layout!(css_set_memory)) == css;
        if how == HOW_PID_NAMESPACE_ENDED || from_inside && first_process == 0 {
            return;
        }
    }
    let key = SignalKey {
        cgroup_id,
        sender_tgid: (maps::caller() >> 32) as u32,
        signal,
        how,
        first_process: place.forgotten(first_process),
    };
    // SAFETY: the helper takes no argument.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if !joins(&key, now) {
        send(&mut reader, of, &key, now);
    }
}

/// Counts a signal: true if its group has begun already.
#[inline(always)]
fn joins(key: &SignalKey, now: u64) -> bool {
    if let Some(group) = maps::SIGNAL_GROUPS.get_ptr_mut(key) {
        // SAFETY: a pointer into the map, checked for NULL; whole integers. Another processor may count at the same time.
        unsafe {
            if now.wrapping_sub((*group).began_ns) < SIGNAL_GROUP_NS {
                maps::add(&raw mut (*group).count, 1);
                return true;
            }
            (*group).began_ns_before = (*group).began_ns;
            (*group).count_before = (*group).count;
            (*group).count = 1;
            (*group).began_ns = now;
        }
        return false;
    }
    let group = SignalGroup { began_ns: now, count: 1, began_ns_before: 0, count_before: 0 };
    // Without it each signal has a record of its own.
    let _kept = maps::SIGNAL_GROUPS.insert(key, group, 0);
    false
}

/// Sends the record of a group that begins.
#[inline(always)]
fn send(reader: &mut Reader, of: &Generated, key: &SignalKey, now: u64) {
    let Some(mut entry) = maps::SIGNALS.reserve::<SignalKill>(0) else {
        maps::count(counter::SIGNAL_RING_FULL, 1);
        return;
    };
    let to = entry.as_mut_ptr();
    // SAFETY: the reservation has room for the record, and each of its fields is written here.
    unsafe {
        (*to).header =
            Header { kind: KIND_SIGNAL_KILL, len: size_of::<SignalKill>() as u32, seq: 0, boot_time_ns: now };
        (*to).signal = key.signal;
        (*to).how = key.how;
        (*to).reserved = 0;
        let css = task::facts(reader, &raw mut (*to).target, of.task);
        task::facts(reader, &raw mut (*to).sender, current());
        sender_file(reader, to);
        levels(reader, to, css);
        // Last: what comes after a branch, the verifier goes through for each of its ways.
        sigterm_before(&raw mut (*to).sigterm, (*to).target.tgid);
    }
    entry.submit(0);
}

/// The sender's parent, and the file that the sender runs.
///
/// # Safety
/// `to` must be writable.
#[inline(always)]
unsafe fn sender_file(reader: &mut Reader, to: *mut SignalKill) {
    let current = current();
    let leader = reader.pointer(current, layout!(task_group_leader));
    let parent = reader.pointer(leader, layout!(task_real_parent));
    let mm = reader.pointer(current, layout!(task_mm));
    let file = reader.pointer(mm, layout!(mm_exe_file));
    let dentry = reader.pointer(file, layout!(file_dentry));
    let name = reader.pointer(dentry, layout!(dentry_name));
    // SAFETY: by this function's contract; all fields are integers.
    unsafe {
        (*to).parent_comm = [0; 16];
        (*to).executable_name = [0; EXECUTABLE_NAME_LEN];
        reader.copy(&raw mut (*to).parent_comm, parent, layout!(task_comm));
        reader.string((&raw mut (*to).executable_name).cast(), EXECUTABLE_NAME_LEN as u32, name);
    }
}

/// The last SIGTERM to a process with this id, if there is one: user space sees by its start whether it is the same process.
///
/// # Safety
/// `to` must be writable.
#[inline(always)]
unsafe fn sigterm_before(to: *mut Sigterm, tgid: u32) {
    const NONE: Sigterm =
        Sigterm { start_ns: 0, sent_ns: 0, sender_tgid: 0, sender_uid: 0, sender_comm: [0; 16] };
    // SAFETY: by this function's contract; a pointer into the map, checked for NULL.
    unsafe {
        *to = NONE;
        if let Some(note) = maps::SIGTERMS.get_ptr(tgid) {
            *to = *note;
        }
    }
}

/// Fills in the levels, from the target's own memory cgroup up.
///
/// # Safety
/// `to` must be writable.
#[inline(always)]
unsafe fn levels(reader: &mut Reader, to: *mut SignalKill, mut css: u64) {
    // SAFETY: by this function's contract; all fields are integers.
    unsafe {
        let count = &raw mut (*to).level_count;
        ptr::write_volatile(count, 0);
        let levels = (&raw mut (*to).levels).cast::<MemcgLevel>();
        for level in 0..SIGNAL_LEVELS {
            // What is not read is not sent as it was in the ring.
            *levels.add(level) = memcg::NO_LEVEL;
            if css == 0 {
                continue;
            }
            let cgroup = reader.pointer(css, layout!(css_cgroup));
            let kn = reader.pointer(cgroup, layout!(cgroup_kn));
            memcg::facts(reader, levels.add(level), css, kn);
            // Nobody looks for it here.
            (*levels.add(level)).address = 0;
            ptr::write_volatile(count, level as u32 + 1);
            css = reader.pointer(css, layout!(css_parent));
        }
    }
}
