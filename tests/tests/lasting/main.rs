//! What happens while the tracer does not run, because it was killed, stopped or replaced. Every victim must
//! be reported or counted. Real kills in their own cgroups, as root.

mod gap;
mod history;
mod metrics;
mod near;
mod world;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::{ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Failed, Trial};
use oomtrace_tests::hog;
use oomtrace_tests::patience::until;
use oomtrace_tests::process::status_kib;
use serde_json::Value;
use world::{Run, World, immutable, is, is_attached, links_of, no_hole, victims_of, wait_for};

fn main() -> ExitCode {
    hog::serve_if_asked();
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let trial = |name: &str, test: fn() -> Result<()>| {
        Trial::test(name, move || test().map_err(|error| Failed::from(format!("{error:#}"))))
    };
    let trials = vec![
        trial("killed_every_half_second", killed_every_half_second),
        trial("stopped_for_five_seconds", stopped_for_five_seconds),
        trial("nothing_stays_without_pin", nothing_stays_without_pin),
        trial("second_run_is_refused", second_run_is_refused),
        trial("other_programs_are_drained_and_replaced", other_programs_are_drained_and_replaced),
        trial("lost_before_they_were_replaced", lost_before_they_were_replaced),
        trial("unread_version_is_counted_never_read", unread_version_is_counted_never_read),
        trial("detached_hook_is_a_gap", gap::detached_hook_is_a_gap),
        trial("own_limit_hides_no_gap", gap::own_limit_hides_no_gap),
        trial("detached_before_they_were_told", detached_before_they_were_told),
        trial("memory_stays_in_a_storm", memory_stays_in_a_storm),
        trial("counters_go_on_after_a_sigkill", metrics::counters_go_on_after_a_sigkill),
        trial("each_cause_has_its_word", history::each_cause_has_its_word),
        trial("a_limit_that_comes_near_is_told_once", near::a_limit_that_comes_near_is_told_once),
        trial("a_restart_loop_has_one_key", history::a_restart_loop_has_one_key),
        trial("history_goes_on_after_a_sigkill", history::history_goes_on_after_a_sigkill),
        trial("metrics_file_that_fails_stops_nothing", metrics::metrics_file_that_fails_stops_nothing),
        trial("file_that_fails", file_that_fails),
        trial("what_is_refused_is_said", what_is_refused_is_said),
        trial("rotated_while_it_starts", rotated_while_it_starts),
    ];
    libtest_mimic::run(&arguments, trials).exit_code()
}

/// 400 kills while the tracer is SIGKILLed every half second.
fn killed_every_half_second() -> Result<()> {
    let world = World::make("killed")?;
    let done = AtomicBool::new(false);
    // The first one must be attached before the first kill.
    let mut first = Run::start(&world.run(&[]))?;
    world.started()?;
    first.kill(libc::SIGKILL)?;
    let (victims, runs) = std::thread::scope(|scope| {
        let tracer = scope.spawn(|| -> Result<usize> {
            let mut runs = 0;
            while !done.load(Ordering::Relaxed) {
                let mut run = Run::start(&world.run(&[]))?;
                std::thread::sleep(Duration::from_millis(500));
                run.kill(libc::SIGKILL)?;
                runs += 1;
            }
            Ok(runs)
        });
        let victims = world.kills(400);
        done.store(true, Ordering::Relaxed);
        let runs = tracer.join().map_err(|_| anyhow::anyhow!("the tracer's thread panicked"))?;
        anyhow::Ok((victims?, runs?))
    })?;
    // The last one reports the rest.
    let mut run = Run::start(&world.run(&["--timeout", "2s"]))?;
    run.ended()?;
    let lines = world.lines()?;
    let told = victims_of(&lines);
    let untold: Vec<_> = victims.difference(&told).collect();
    ensure!(untold.is_empty(), "{} of {} victims were not reported: {untold:?}", untold.len(), victims.len());
    ensure!(runs > 2, "the tracer was killed {runs} times only");
    no_hole(&lines)?;
    for kind in ["lost", "gap"] {
        ensure!(lines.iter().all(|line| is(line, "type") != kind), "a {kind} line: {lines:?}");
    }
    let resumed = lines.iter().filter(|line| line.get("resumed") == Some(&true.into())).count();
    ensure!(resumed > 2, "{resumed} runs took over");
    let streams: BTreeSet<_> = lines.iter().map(|line| is(line, "stream")).collect();
    ensure!(streams.len() == 1, "one set of programs has the streams {streams:?}");
    world.detach()
}

/// 3,000 kills with a small ring, while the tracer is stopped for five seconds.
fn stopped_for_five_seconds() -> Result<()> {
    let world = World::make("stopped")?;
    let mut run = Run::start(&world.run_unpinned(&["--ring-size", "16KiB"]))?;
    world.started()?;
    std::thread::scope(|scope| {
        let kills = scope.spawn(|| world.kills(3000));
        std::thread::sleep(Duration::from_secs(1));
        run.kill_only(libc::SIGSTOP)?;
        std::thread::sleep(Duration::from_secs(5));
        run.kill_only(libc::SIGCONT)?;
        let victims = kills.join().map_err(|_| anyhow::anyhow!("the kills' thread panicked"))??;
        ensure!(victims.len() == 3000, "{} kills", victims.len());
        anyhow::Ok(())
    })?;
    run.kill_only(libc::SIGTERM)?;
    run.ended()?;
    let lines = world.lines()?;
    let told = lines.iter().filter(|line| is(line, "type") == "oom_kill").count() as u64;
    let full = |line: &&Value| is(line, "type") == "lost" && is(line, "reason") == "ring_full";
    let lost: u64 = lines.iter().filter(full).filter_map(|line| line.get("count")?.as_u64()).sum();
    ensure!(lost > 0, "nothing was lost: the ring was not full, so nothing was tested");
    ensure!(world.is_count(told + lost, 3000)?, "reported {told} + lost {lost} = {}, not 3000", told + lost);
    for line in &lines {
        ensure!(is(line, "type") != "gap", "counted losses are no gap: {line}");
        // On a fast host the cgroups of five seconds do not fit either.
        let expected = ["ring_full", "cgroup_ring_full"].contains(&is(line, "reason"));
        ensure!(is(line, "type") != "lost" || expected, "{line}");
    }
    Ok(())
}

fn nothing_stays_without_pin() -> Result<()> {
    let world = World::make("unpinned")?;
    let mut run = Run::start(&world.run_unpinned(&[]))?;
    world.started()?;
    let links = links_of(run.child.id())?;
    ensure!(links.len() >= 5, "a running tracer has the links {links:?} only: this test proves nothing");
    for link in &links {
        ensure!(
            is_attached(*link)?,
            "link {link} of a running tracer is not there: this test proves nothing"
        );
    }
    run.kill(libc::SIGKILL)?;
    wait_for("end of its links", || links.iter().all(|link| is_attached(*link).is_ok_and(|there| !there)))
}

fn second_run_is_refused() -> Result<()> {
    let world = World::make("second")?;
    let mut first = Run::start(&world.run(&[]))?;
    world.started()?;
    let pin = format!("--pin={}", world.pins());
    // A run that is not refused must end too.
    let pins = world.pins();
    let (run, detach) = (["run", "--timeout", "1s", &pin], ["detach", &pins]);
    for arguments in [&run as &[&str], &detach] {
        let second = world.oomtrace(arguments)?;
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        ensure!(!second.status.success(), "{arguments:?} did not fail");
        ensure!(said.contains(&format!("in use by process {}", first.child.id())), "{arguments:?}: {said}");
    }
    first.kill(libc::SIGKILL)?;
    world.detach()
}

/// Programs with another ring size count as other programs.
fn other_programs_are_drained_and_replaced() -> Result<()> {
    let world = World::make("replaced")?;
    let mut first = Run::start(&world.run(&["--ring-size", "256KiB"]))?;
    world.started()?;
    first.kill(libc::SIGKILL)?;
    let victims = world.kills(5)?;
    let mut second = Run::start(&world.run(&["--ring-size", "128KiB"]))?;
    world.started_times(3)?;
    ensure!(world.generations()? == 1, "the replaced programs are still pinned");
    let later = world.kills(3)?;
    second.kill(libc::SIGTERM)?;
    let lines = world.lines()?;
    let told = world.own_victims_of(&lines);
    ensure!(told == &victims | &later, "reported {told:?}, killed {victims:?} {later:?}");
    let starts: Vec<_> = lines.iter().filter(|line| is(line, "type") == "start").collect();
    let resumed: Vec<_> = starts.iter().map(|line| line.get("resumed") == Some(&true.into())).collect();
    ensure!(resumed == [false, true, false], "{resumed:?}");
    let streams: Vec<_> = starts.iter().map(|line| is(line, "stream")).collect();
    let taken_over = matches!(streams[..], [one, same, other] if one == same && one != other);
    ensure!(taken_over, "the streams of the programs: {streams:?}");
    no_hole(&lines)?;
    world.detach()
}

/// The `stop` line also has the losses of programs that this run replaced.
fn lost_before_they_were_replaced() -> Result<()> {
    let world = World::make("lost")?;
    let mut first = Run::start(&world.run(&["--ring-size", "8KiB"]))?;
    world.started()?;
    first.kill(libc::SIGKILL)?;
    let victims = world.kills(20)?;
    let mut second = Run::start(&world.run(&["--ring-size", "128KiB"]))?;
    world.started_times(3)?;
    second.kill_only(libc::SIGTERM)?;
    second.ended()?;
    let lines = world.lines()?;
    let lost: u64 = lines
        .iter()
        .filter(|line| is(line, "type") == "lost" && is(line, "reason") == "ring_full")
        .filter_map(|line| line.get("count")?.as_u64())
        .sum();
    let told = victims_of(&lines).intersection(&victims).count() as u64;
    ensure!(lost > 0 && told + lost >= 20, "reported {told}, lost {lost} of 20");
    let stop = lines.last().filter(|line| is(line, "type") == "stop").context("no stop")?;
    ensure!(stop.get("lost") == Some(&lost.into()), "{lost} were lost: {stop}");
    world.detach()
}

fn unread_version_is_counted_never_read() -> Result<()> {
    let world = World::make("version")?;
    let mut first = Run::start(&world.run(&[]))?;
    world.started()?;
    first.kill(libc::SIGKILL)?;
    let victims = world.kills(5)?;
    let own = world.generation()?;
    let name = own.file_name().and_then(|name| name.to_str()).context("a name")?;
    let (_, hash) = name.split_once('-').context("a name with a hash")?;
    fs::rename(&own, own.with_file_name(format!("v999-{hash}"))).context("rename a generation")?;
    let mut second = Run::start(&world.run(&[]))?;
    world.started_times(2)?;
    second.kill(libc::SIGTERM)?;
    ensure!(world.generations()? == 1, "the other version's programs are still pinned");
    let lines = world.lines()?;
    ensure!(victims_of(&lines).is_disjoint(&victims), "a record of another version was read");
    let lost = |line: &&Value| is(line, "type") == "lost" && is(line, "reason") == "unreadable_record";
    let lost: u64 = lines.iter().filter(lost).filter_map(|line| line.get("count")?.as_u64()).sum();
    ensure!(world.is_count(lost, 5)?, "{lost} records were counted as unreadable, not 5");
    world.detach()
}

/// A run that replaces programs detaches them, and ends before it has reported their records. The next run
/// with the same programs must not take them for an interrupted start.
fn detached_before_they_were_told() -> Result<()> {
    let world = World::make("detached")?;
    let mut first = Run::start(&world.run(&[]))?;
    world.started()?;
    first.kill(libc::SIGKILL)?;
    let victims = world.kills(5)?;
    for entry in fs::read_dir(world.generation()?)?.flatten() {
        if entry.file_name().as_encoded_bytes().starts_with(b"link-") {
            fs::remove_file(entry.path())?;
        }
    }
    let mut second = Run::start(&world.run(&[]))?;
    world.started_times(3)?;
    ensure!(world.generations()? == 1, "the detached programs are still pinned");
    second.kill(libc::SIGTERM)?;
    let told = victims_of(&world.lines()?);
    ensure!(told.is_superset(&victims), "reported {told:?}, killed {victims:?}");
    world.detach()
}

/// A storm needs no more memory than the first few kills.
fn memory_stays_in_a_storm() -> Result<()> {
    let world = World::make("memory")?;
    let mut run = Run::start(&world.run_unpinned(&[]))?;
    world.started()?;
    let resident = || status_kib(run.child.id(), "VmRSS");
    world.kills(50)?;
    let before = resident()?;
    world.kills(500)?;
    let after = resident()?;
    ensure!(after < before + 1024, "{before} KiB after 50 kills, {after} KiB after 550");
    run.kill_only(libc::SIGTERM)?;
    run.ended()
}

/// A file that cannot be written for a while: nothing is lost and no line is torn.
fn file_that_fails() -> Result<()> {
    let world = World::make("fails")?;
    let mut run = Run::start(&world.run_unpinned(&[]))?;
    world.started()?;
    let mut victims = world.kills(2)?;
    if !immutable(&world.output(), true)? {
        // This file system has no such flag: `cargo xtask soak` tests it in another way.
        return Ok(());
    }
    let sealed = (|| {
        let before = fs::read(world.output())?;
        victims.extend(world.kills(20)?);
        std::thread::sleep(Duration::from_millis(500));
        ensure!(fs::read(world.output())? == before, "the file could be written all the time");
        ensure!(run.child.try_wait()?.is_none(), "the run ended");
        Ok(())
    })();
    immutable(&world.output(), false)?;
    sealed?;
    victims.extend(world.kills(1)?);
    run.kill_only(libc::SIGTERM)?;
    run.ended()?;
    let lines = world.lines()?;
    ensure!(victims_of(&lines).is_superset(&victims), "not all were reported");
    no_hole(&lines)
}

/// It runs even if it cannot lock memory, run first or protect itself from the OOM killer.
fn what_is_refused_is_said() -> Result<()> {
    // include/uapi/linux/capability.h
    const DROPPED: [libc::c_ulong; 3] = [14, 23, 24];
    let world = World::make("refused")?;
    let mut command = world.run_unpinned(&[]);
    // SAFETY: system calls only; the limit is alive through the call.
    unsafe {
        command.pre_exec(|| {
            let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
            for resource in [libc::RLIMIT_MEMLOCK, libc::RLIMIT_RTPRIO] {
                if libc::setrlimit(resource, &raw const none) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            for capability in DROPPED {
                if libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) != 0 {
                    return Err(std::io::Error::last_os_error());
                }
            }
            Ok(())
        });
    }
    let mut run = Run { child: command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()? };
    world.started()?;
    let victims = world.kills(2)?;
    run.kill_only(libc::SIGTERM)?;
    run.ended()?;
    let lines = world.lines()?;
    ensure!(victims_of(&lines).is_superset(&victims), "not all were reported");
    let limits =
        lines.first().and_then(|start| start.get("limits")).map(Value::to_string).unwrap_or_default();
    for refused in ["memory is not locked", "no real-time scheduling", "oom_score_adj is not lowered"] {
        ensure!(limits.contains(refused), "{refused:?} is not reported: {limits}");
    }
    Ok(())
}

/// logrotate's SIGHUP while the file is open but the programs are not attached yet.
fn rotated_while_it_starts() -> Result<()> {
    let world = World::make("rotated")?;
    let mut run = Run::start(&world.run_unpinned(&[]))?;
    wait_for("a file", || world.output().exists())?;
    until("a start line", || {
        ensure!(run.child.try_wait()?.is_none(), "it ended");
        run.kill_only(libc::SIGHUP)?;
        Ok((world.started_now() > 0).then_some(()))
    })?;
    run.kill_only(libc::SIGTERM)?;
    run.ended()
}
