//! Between a victim's SIGKILL and its mark, the kernel sends another SIGKILL on the same processor.
//!
//! A program of this scenario runs when the OOM killer sends the victim's signal, and calls `bpf_send_signal`.
//! Interrupts are off there, so the kernel puts off the signal to an interrupt of its own, which comes as soon
//! as they are on again: after the victim's signal is sent, and before the victim is marked. Nothing waits.

use anyhow::{Result, ensure};

use super::{LIMIT, Outcome, not_applicable};
use crate::bpf::code::{
    ADD, CALL, EXIT, IF_IS, IF_IS_NOT, IF_SAME, LOAD, LOW_HALF, MOVE, SET, STORE, STORE_HALF, WIDE,
};
use crate::bpf::helper::{
    GET_CURRENT_PID_TGID, GET_CURRENT_TASK, GET_SMP_PROCESSOR_ID, KTIME_GET_BOOT_NS, MAP_LOOKUP_ELEM,
    SEND_SIGNAL,
};
use crate::bpf::{Attached, Places, instruction};
use crate::compare::ExpectedTrigger;
use crate::counters::wall_clock_ns;
use crate::session::Session;

/// The victim's line must say that it was killed, although the last SIGKILL on this processor was another's.
pub(super) fn before_the_mark(session: &mut Session) -> Result<Outcome> {
    if std::fs::read_to_string("/proc/version")?.contains("PREEMPT_RT") {
        return not_applicable("this kernel sends such a signal from a thread, later");
    }
    let cgroup = session.cgroup(b"second-sigkill")?;
    cgroup.limit(2 * LIMIT)?;
    let mut victim = session.hog_in(&cgroup, b"hog-victim")?;
    let mut trigger = session.hog_in(&cgroup, b"hog-trigger")?;
    victim.ask("adj 1000")?;
    victim.hold(3 * LIMIT / 2)?;
    let (facts, of_trigger, released) = (victim.facts()?, trigger.facts()?, wall_clock_ns());
    let second = SecondSigkill::to(of_trigger.tid)?;
    trigger.grow("anon")?;
    victim.killed()?;
    trigger.killed()?;
    second.came_before_the_mark()?;
    drop(second);

    let kills = cgroup.events()?.get("oom_kill").copied();
    ensure!(kills == Some(1), "the kernel counted {kills:?} kills, not 1");
    let mut expected = session.killed_by_limit(facts, &cgroup, (&cgroup, 2 * LIMIT), released)?;
    expected.trigger = ExpectedTrigger::Other { facts: of_trigger, cgroup: cgroup.place().clone() };
    if let Some(fired) = &mut expected.fired {
        fired.events_of_this_kill_alone = false;
        fired.another_dies = true;
    }
    session.check(&[expected])?;
    Ok(Outcome::Passed)
}

/// What the trigger's processor does, in this order. For each: when, `CLOCK_BOOTTIME` ns, and on which processor.
const VICTIM_SIGNALLED: u32 = 0;
const TRIGGER_SIGNALLED: u32 = 1;
const MARKED: u32 = 2;

/// When the thread `trigger` sends SIGKILL to another task in the OOM killer, the kernel sends one to this
/// thread as well. Signals of others are only compared, and not changed. A drop ends it.
struct SecondSigkill {
    steps: Places<2>,
    _attached: [Attached; 2],
}

impl SecondSigkill {
    fn to(trigger: u32) -> Result<Self> {
        let trigger = i32::try_from(trigger)?;
        let steps = Places::make(3)?;
        let attached = [
            Attached::to(c"signal_generate", &at_a_signal(trigger, steps.descriptor()))?,
            Attached::to(c"mark_victim", &at_a_mark(trigger, steps.descriptor()))?,
        ];
        Ok(Self { steps, _attached: attached })
    }

    /// Without this, nothing was tested. The time of the mark is taken just after the tracer's program.
    fn came_before_the_mark(&self) -> Result<()> {
        let [sent, sent_on] = self.steps.read(VICTIM_SIGNALLED)?;
        let [second, second_on] = self.steps.read(TRIGGER_SIGNALLED)?;
        let [marked, marked_on] = self.steps.read(MARKED)?;
        ensure!(
            0 < sent && sent < second && second < marked && sent_on == second_on && second_on == marked_on,
            "no second SIGKILL came between the victim's and the mark, so nothing was tested: the victim's at \
             {sent} on processor {sent_on}, another at {second} on {second_on}, the mark at {marked} on {marked_on}"
        );
        Ok(())
    }
}

/// Runs at each signal: if the kernel itself sends SIGKILL in the thread `trigger`, it notes that. If it is to
/// another task, it has one sent to the thread as well.
fn at_a_signal(trigger: i32, steps: i32) -> Vec<u64> {
    const SEND_SIG_PRIV: i32 = 1;
    let mut code = vec![instruction(MOVE, (6, 1), 0, 0), instruction(LOAD, (1, 6), 0, 0)];
    code.extend(only_if(1, libc::SIGKILL));
    code.push(instruction(LOAD, (1, 6), 8, 0));
    code.extend(only_if(1, SEND_SIG_PRIV));
    code.extend(only_in(trigger));
    code.extend([
        // The signalled task is the third argument.
        instruction(CALL, (0, 0), 0, GET_CURRENT_TASK),
        instruction(LOAD, (1, 6), 16, 0),
        instruction(SET, (7, 0), 0, TRIGGER_SIGNALLED.cast_signed()),
        instruction(IF_SAME, (0, 1), 1, 0),
        instruction(SET, (7, 0), 0, VICTIM_SIGNALLED.cast_signed()),
    ]);
    code.extend(note(steps));
    code.extend(only_if(7, VICTIM_SIGNALLED.cast_signed()));
    code.extend([instruction(SET, (1, 0), 0, libc::SIGKILL), instruction(CALL, (0, 0), 0, SEND_SIGNAL)]);
    code.extend(END);
    code
}

/// Notes when the thread `trigger` marks a victim.
fn at_a_mark(trigger: i32, steps: i32) -> Vec<u64> {
    let mut code = only_in(trigger).to_vec();
    code.push(instruction(SET, (7, 0), 0, MARKED.cast_signed()));
    code.extend(note(steps));
    code.extend(END);
    code
}

const END: [u64; 2] = [instruction(SET, (0, 0), 0, 0), instruction(EXIT, (0, 0), 0, 0)];

/// Ends the program if the register has another value.
const fn only_if(register: u8, value: i32) -> [u64; 3] {
    let [result, end] = END;
    [instruction(IF_IS, (register, 0), 2, value), result, end]
}

/// Ends the program in other threads.
const fn only_in(thread: i32) -> [u64; 5] {
    let [compare, result, end] = only_if(0, thread);
    [
        instruction(CALL, (0, 0), 0, GET_CURRENT_PID_TGID),
        instruction(LOW_HALF, (0, 0), 0, 0),
        compare,
        result,
        end,
    ]
}

/// Writes time and processor to the place in register 7. Ends the program if something is there already.
fn note(steps: i32) -> Vec<u64> {
    let [result, end] = END;
    let mut code = vec![
        instruction(STORE_HALF, (10, 7), -4, 0),
        // Source 1 says that the constant is a map's descriptor.
        instruction(WIDE, (1, 1), 0, steps),
        0,
        instruction(MOVE, (2, 10), 0, 0),
        instruction(ADD, (2, 0), 0, -4),
        instruction(CALL, (0, 0), 0, MAP_LOOKUP_ELEM),
        instruction(IF_IS_NOT, (0, 0), 2, 0),
        result,
        end,
        instruction(MOVE, (8, 0), 0, 0),
        instruction(LOAD, (1, 8), 0, 0),
    ];
    code.extend(only_if(1, 0));
    code.extend([
        instruction(CALL, (0, 0), 0, KTIME_GET_BOOT_NS),
        instruction(STORE, (8, 0), 0, 0),
        instruction(CALL, (0, 0), 0, GET_SMP_PROCESSOR_ID),
        instruction(STORE, (8, 0), 8, 0),
    ]);
    code
}
