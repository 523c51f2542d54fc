#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;
use crate::host::root::Root;

const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// What is read from a file with this `text`.
fn said(runtime: Runtime, file: &Path, text: &str) -> Says {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join(file);
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
    let state = vec![StateDir::system(dir.path())];
    let dirs = StateDirs { docker: state.clone(), containerd_roots: state, ..StateDirs::default() };
    let home = home(&dirs, runtime, ID, true).unwrap();
    read(&home, ID)
}

fn docker(state: &str) -> Says {
    said(Runtime::Docker, &docker_file(ID), &format!(r#"{{"State":{{{state}}}}}"#))
}

fn says(oom_killed: bool, exit_code: Option<i64>, status: &str) -> RuntimeSays {
    RuntimeSays { oom_killed: Some(oom_killed), exit_code, status: Some(status.to_owned()) }
}

#[track_caller]
fn settled(said: Says, expected: RuntimeSays) {
    let Says::Settled(said) = said else { panic!("{said:?}") };
    assert_eq!(said, expected);
}

#[track_caller]
fn open(said: Says, expected: RuntimeSays) {
    let Says::Open(said) = said else { panic!("{said:?}") };
    assert_eq!(said, expected);
}

#[test]
fn docker_settles_when_the_container_ended_or_is_flagged() {
    settled(docker(r#""OOMKilled":true,"ExitCode":137"#), says(true, Some(137), "exited"));
    settled(docker(r#""OOMKilled":false,"ExitCode":137"#), says(false, Some(137), "exited"));
    settled(docker(r#""Running":true,"OOMKilled":true"#), says(true, None, "running"));
    open(docker(r#""Running":true,"OOMKilled":false"#), says(false, None, "running"));
    open(docker(r#""Running":true,"Paused":true"#), says(false, None, "paused"));
    open(docker(r#""Running":true,"Restarting":true,"ExitCode":1"#), says(false, Some(1), "restarting"));
}

#[test]
fn a_pod_s_container_is_flagged_by_its_reason() {
    let file = cri_file(ID);
    let cri = |text: &str| said(Runtime::Containerd, &file, text);
    let killed = r#"{"Version":"v1","FinishedAt":7,"ExitCode":137,"Reason":"OOMKilled"}"#;
    settled(cri(killed), says(true, Some(137), "CONTAINER_EXITED"));
    let missed = r#"{"Version":"v1","FinishedAt":7,"ExitCode":137,"Reason":""}"#;
    settled(cri(missed), says(false, Some(137), "CONTAINER_EXITED"));
    let running = r#"{"Version":"v1","FinishedAt":0,"ExitCode":0,"Reason":""}"#;
    open(cri(running), says(false, None, "CONTAINER_RUNNING"));
}

#[test]
fn what_cannot_be_read_is_not_gone() {
    assert!(matches!(docker(r#""Running":7"#), Says::Unknown(_)));
    let dir = tempfile::tempdir().unwrap();
    let home = Home::Docker { dir: StateDir::system(dir.path()), asked: true };
    assert!(matches!(read(&home, ID), Says::Gone));
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Not tested with CRI-O itself; follows its source code.
#[test]
fn cri_o_is_flagged_by_what_its_monitor_left() {
    let (stays, goes) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let crio = [goes.path(), stays.path()].map(StateDir::system).to_vec();
    let dirs = StateDirs { crio, ..StateDirs::default() };
    let found = || home(&dirs, Runtime::CriO, ID, true);
    assert_eq!(found().unwrap_err(), Unsaid::Gone);
    write(&goes.path().join(crio_file(ID, "config.json")), "{}");
    let home = found().unwrap();
    open(read(&home, ID), says(false, None, "CONTAINER_RUNNING"));
    // The kill of a child process is counted too. It shows when the container ends.
    write(&goes.path().join(crio_file(ID, "oom")), "");
    open(read(&home, ID), says(false, None, "CONTAINER_RUNNING"));
    assert!(!is_flagged(&home, ID));
    write(&stays.path().join(crio_file(ID, "exit")), "137");
    settled(read(&home, ID), says(true, Some(137), "CONTAINER_EXITED"));
    assert!(is_flagged(&home, ID) && !was_flagged_before(&home, ID, 0));
    assert!(was_flagged_before(&home, ID, i128::MAX));
    std::fs::remove_file(goes.path().join(crio_file(ID, "oom"))).unwrap();
    settled(read(&home, ID), says(false, Some(137), "CONTAINER_EXITED"));
    write(&stays.path().join(crio_file(ID, "exit")), &"1".repeat(65));
    assert!(matches!(read(&home, ID), Says::Unknown(_)));
    for dir in [&stays, &goes] {
        std::fs::remove_dir_all(dir.path().join("overlay-containers")).unwrap_or_default();
    }
    assert!(matches!(read(&home, ID), Says::Gone));
}

/// A host where `ann`, uid 1000, has her own containers.
fn anns() -> (tempfile::TempDir, UserDirs) {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("etc/passwd"), "ann:x:1000:1000::/home/ann:/bin/sh\n");
    let own = UserDirs::of(&Root::at(dir.path()), 1000).unwrap();
    (dir, own)
}

#[test]
fn a_user_s_docker_is_read_and_its_daemon_not_asked() {
    let (host, own) = anns();
    let data = host.path().join("home/ann/.local/share/docker");
    let found = |user| home_of_user(user, Runtime::Docker, ID, true);
    write(&data.join(docker_file(ID)), r#"{"State":{"OOMKilled":true,"ExitCode":137}}"#);
    let home = found(Some(&own)).unwrap();
    assert!(matches!(home, Home::Docker { asked: false, .. }));
    settled(read(&home, ID), says(true, Some(137), "exited"));
    assert!(matches!(found(None), Err(Unsaid::Unknown(_))), "another user's files do not count");
    // Links are not followed.
    let file = data.join(docker_file(ID));
    std::fs::rename(&file, host.path().join("secret")).unwrap();
    std::os::unix::fs::symlink(host.path().join("secret"), &file).unwrap();
    assert!(
        matches!(found(Some(&own)), Err(Unsaid::Unknown(why)) if why.contains("link")),
        "not known, not gone"
    );
    assert!(matches!(read(&home, ID), Says::Unknown(why) if why.contains("link")));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(found(Some(&own)).unwrap_err(), Unsaid::Gone);
}

#[test]
fn a_user_s_podman_is_not_asked() {
    let (host, own) = anns();
    let list =
        host.path().join("home/ann/.local/share/containers/storage/overlay-containers/containers.json");
    write(&list, &format!(r#"[{{"id":"{ID}","names":["anns"]}}]"#));
    let home = home_of_user(Some(&own), Runtime::Podman, ID, true).unwrap();
    assert!(matches!(home, Home::UserPodman));
    assert!(matches!(read(&home, ID), Says::Unknown(why) if why.contains("database")));
}

#[test]
fn a_container_that_was_never_read_is_not_called_gone() {
    let dir = tempfile::tempdir().unwrap();
    write(&dir.path().join("containers/other/config.v2.json"), "{}");
    let dirs = StateDirs { docker: vec![StateDir::system(dir.path())], ..StateDirs::default() };
    assert_eq!(home(&dirs, Runtime::Docker, ID, true).unwrap_err(), Unsaid::Gone);
    assert!(matches!(home(&dirs, Runtime::Docker, ID, false), Err(Unsaid::Unknown(_))));
    assert!(matches!(home(&dirs, Runtime::Containerd, ID, true), Err(Unsaid::Unknown(_))));
}

#[test]
fn a_container_whose_file_cannot_be_read_is_not_called_gone() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("overlay-containers/containers.json");
    write(&list, "[]");
    let dirs = StateDirs { podman: vec![StateDir::system(dir.path())], ..StateDirs::default() };
    assert_eq!(home(&dirs, Runtime::Podman, ID, true).unwrap_err(), Unsaid::Gone);
    write(&list, "[");
    assert!(matches!(home(&dirs, Runtime::Podman, ID, true), Err(Unsaid::Unknown(_))));
}
