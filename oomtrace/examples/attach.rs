fn rss() -> String { std::fs::read_to_string("/proc/self/status").unwrap().lines().filter(|l| l.starts_with("VmRSS")||l.starts_with("VmHWM")).collect::<Vec<_>>().join(" ") }
fn main() {
    let t = std::time::Instant::now();
    let bytes = std::fs::read("/sys/kernel/btf/vmlinux").unwrap();
    let btf = oomtrace::kernel::btf::Btf::parse(bytes).unwrap();
    let r = oomtrace::kernel::layout::resolve(&btf, 4).unwrap();
    println!("{:?} btf {}", t.elapsed(), rss());
    let o = oomtrace::probe::Options { hook: if std::env::args().nth(1).is_some() {oomtrace::probe::HookChoice::Auto} else {oomtrace::probe::HookChoice::None}, kill_ring_bytes: 512<<10, cgroup_ring_bytes: 256<<10, debug: false };
    let mut p = match oomtrace::probe::Probe::attach(&o, &r.layout, &btf) { Ok(p) => p, Err(e) => { println!("{e}"); return } };
    println!("{:?} attached {} {:#?}", t.elapsed(), rss(), p.hooks());
    let d = oomtrace::decode::Decoder::new(4096);
    loop {
        std::thread::sleep(std::time::Duration::from_millis(200));
        while let Some(i) = p.cgroups().next() { println!("{:?}", d.record(&i)); }
        while let Some(i) = p.kills().next() { println!("{} {:#?}", i.len(), d.record(&i)); }
    }
}
