//! CRI-O, Podman, and runtimes without a daemon.

use super::*;

#[test]
fn cri_o() {
    let slice = format!("kubepods-burstable-pod{}.slice", UID.replace('-', "_"));
    let parents = "/kubepods.slice/kubepods-burstable.slice";
    for (said, path, below) in [
        (format!("{slice}:crio:{A}"), format!("{parents}/{slice}/crio-{A}.scope"), ""),
        (format!("{slice}:crio:{A}"), format!("{parents}/{slice}/crio-{A}.scope"), "/container"),
        (format!("/kubepods/pod{UID}/crio-{A}"), format!("/kubepods/pod{UID}/crio-{A}"), ""),
    ] {
        for store in ["/run/containers/storage", "/var/lib/containers/storage"] {
            let mut host = Host::new();
            let spec = json!({"linux": {"cgroupsPath": said}, "annotations": {
                "io.kubernetes.container.name": "api", "io.kubernetes.pod.name": "api-7d9f",
                "io.kubernetes.pod.namespace": "shop", "io.kubernetes.pod.uid": UID,
                "io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.cri-o.ImageName": "quay.example/api:v2",
                "io.kubernetes.cri-o.Metadata": "{\"name\":\"api\",\"attempt\":4}"}});
            host.write(&format!("{store}/overlay-containers/{A}/userdata/config.json"), spec.to_string());
            let identity = host.life(&path, below, &[store]);
            assert_eq!(name(&identity), Some(("cri-o", A, Some("api"))));
            assert_eq!(pod(&identity), IN_POD);
            assert_eq!(identity.k8s.unwrap().container.unwrap().restart_count, Some(4));
        }
    }
    let monitor = Host::new().identify(&[], format!("{parents}/{slice}/crio-conmon-{A}.scope"));
    assert_eq!(monitor.container, None, "the monitor is not the container");
}

#[test]
fn podman() {
    for path in [
        format!("/libpod_parent/libpod-{A}"),
        format!("/libpod_parent/{C}/libpod-{A}"),
        format!("/machine.slice/libpod-{A}.scope"),
        format!("/machine.slice/machine-libpod_pod_{C}.slice/libpod-{A}.scope"),
    ] {
        for below in ["", "/container"] {
            let mut host = Host::new();
            host.podman("/var/lib/containers/storage", &[(B, "other"), (A, "hog")]);
            let identity = host.life(&path, below, &["/var/lib/containers"]);
            assert_eq!(name(&identity), Some(("podman", A, Some("hog"))), "{path}");
            assert_eq!(identity.container.unwrap().image.unwrap().name, "localhost/hog:latest");
        }
    }
}

#[test]
fn podman_in_a_unit_and_with_a_store_of_its_own() {
    let mut host = Host::new();
    host.write(
        "/etc/containers/storage.conf",
        "[storage]\n  driver = \"overlay\"\n  graphroot = \"/srv/pods\"\n",
    );
    host.restart();
    host.podman("/srv/pods", &[(A, "quadlet")]);
    let path = format!("/system.slice/web.service/libpod-payload-{A}");
    let spec = json!({"linux": {"cgroupsPath": path}});
    host.write(&format!("/srv/pods/overlay-containers/{A}/userdata/config.json"), spec.to_string());
    let identity = host.life(&path, "", &["/srv/pods"]);
    assert_eq!(name(&identity), Some(("podman", A, Some("quadlet"))));
    assert_eq!(unit(&identity), Some("web.service"));
}

#[test]
fn podman_of_a_user() {
    let mut host = Host::new();
    host.write("/etc/passwd", "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n");
    host.podman("/home/ann/.local/share/containers/storage", &[(A, "anns")]);
    let path = format!("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{A}.scope");
    let identity = host.life(&path, "/container", &["/home/ann"]);
    assert_eq!(name(&identity), Some(("podman", A, Some("anns"))));
}

#[test]
fn lxc_and_incus() {
    for (path, id) in [
        ("/lxc.payload.web", "web"),
        ("/lxc.payload.shop_web", "shop_web"),
        ("/lxc/web", "web"),
        ("/lxc.payload/web", "web"),
    ] {
        let identity = Host::new().life(path, "/init.scope", &[]);
        assert_eq!(name(&identity), Some(("lxc", id, Some(id))), "{path}");
        assert_eq!(unit(&identity), None);
    }
    assert_eq!(Host::new().identify(&[], "/lxc.monitor.web").container, None);
}

#[test]
fn nspawn() {
    for (path, id) in [
        ("/machine.slice/machine-web.scope/payload", "web"),
        ("/machine.slice/machine-my\\x2dbox.scope/payload/init.scope", "my-box"),
        ("/machine.slice/systemd-nspawn@my-box.service/payload", "my-box"),
    ] {
        let identity = Host::new().identify(&[], path);
        assert_eq!(name(&identity), Some(("systemd-nspawn", id, Some(id))), "{path}");
        assert_eq!(unit(&identity), path.split('/').nth(2));
    }
    let machine =
        Host::new().identify(&[], "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope/libvirt/emulator");
    assert_eq!(machine.container, None, "libvirt's machines are no containers");
}

#[test]
fn systemd_units() {
    for (path, expected) in [
        ("/system.slice/nginx.service", "nginx.service"),
        ("/system.slice/nginx.service/worker", "nginx.service"),
        ("/system.slice/system-getty.slice/getty@tty1.service", "getty@tty1.service"),
        ("/system.slice/dev-disk-by\\x2duuid-1.swap", "dev-disk-by\\x2duuid-1.swap"),
        ("/system.slice/_memory.service", "memory.service"),
        ("/init.scope", "init.scope"),
        ("/system.slice", "system.slice"),
        ("/user.slice/user-1000.slice/session-3.scope", "session-3.scope"),
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/app-x.service/y", "app-x.service"),
        ("/user.slice/user-1000.slice/user@1000.service/init.scope", "init.scope"),
        ("/system.slice/run-r1.scope/evil.service", "run-r1.scope"),
        ("/system.slice/user@1000.service/app.slice/x.service", "user@1000.service"),
    ] {
        let identity = Host::new().identify(&[], path);
        assert_eq!((identity.container.as_ref(), unit(&identity)), (None, Some(expected)), "{path}");
        assert_eq!(identity.missing, vec![], "{path}");
    }
}

#[test]
fn a_cgroup_made_by_hand() {
    for path in ["/", "/hog", "/a/b", "/a/b.service", "/stray/x.slice"] {
        let identity = Host::new().identify(&[], path);
        assert_eq!((identity.container.as_ref(), unit(&identity)), (None, None), "{path}");
        assert!(!why(&identity, "container").is_empty(), "{path}");
    }
}
