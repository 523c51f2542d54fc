#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::*;
use crate::event::{Lru, MemoryEvidence};

const V1: &str = include_str!("../../fixtures/kmsg-6.18-v1.txt");

fn reports(lines: &str) -> RunReports {
    let mut reports = RunReports::new(4096);
    lines.lines().for_each(|line| reports.push(line.as_bytes()));
    reports
}

fn only(lines: &str) -> RunReport {
    let mut reports = reports(lines);
    let report = reports.take(|_| true).unwrap();
    assert_eq!(reports.take(|_| true), None);
    report
}

/// A report as a kernel without one line for each key writes it: all keys are one record.
fn in_one_record(stats: &str) -> String {
    let stats = stats.replace('\n', "\\x0a");
    format!(
        "4,1,1000,-;a invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\n\
         6,2,1001,-;memory: usage 8192kB, limit 8192kB, failcnt 3\n\
         6,3,1002,-;Memory cgroup stats for /a:\n\
         6,4,1003,c;{stats}\n\
         6,4,1003,-;{stats}\n\
         6,5,1004,-;Tasks state (memory values in pages):\n\
         6,6,1005,-;[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name\n\
         6,7,1006,-;[     12]     0    12      605      300    45056        0          -900 sh\n\
         6,8,1006,-;[     14]     0    14      605      700    45056        0             0 a b) 1 2 3\n\
         6,9,1007,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a,task_memcg=/a,\
         task=hog,pid=9,uid=0\n"
    )
}

#[test]
fn one_line_for_each_key_of_v1() {
    let report = only(V1);
    assert_eq!((report.pid, report.time_us), (7946, 1352971919));
    assert_eq!(report.memcg.as_deref(), Some(b"/oomtrace-b-test".as_slice()));
    let memory = report.memory.unwrap();
    assert_eq!(
        memory,
        CgroupMemory {
            evidence: MemoryEvidence::KernelLog,
            anon_bytes: Some(16658432),
            file_bytes: Some(0),
            shmem_bytes: Some(0),
            kernel_bytes: Some(116 << 10),
            file_dirty_bytes: Some(0),
            file_writeback_bytes: Some(0),
            lru: Lru { anon_bytes: Some(16658432), file_bytes: Some(0), unevictable_bytes: Some(0) },
            ..CgroupMemory::default()
        }
    );
    let table = report.processes.unwrap();
    assert_eq!((table.count, table.rss_bytes), (1, 4630 * 4096));
    let row = table.largest.first().unwrap();
    assert_eq!((row.pid, row.comm.as_str(), row.oom_score_adj), (7946, "a,task=\u{fffd}\n x", 0));
}

/// On v1 a key without `total_` leaves out the cgroups below.
#[test]
fn of_v1_the_cgroups_below_count() {
    let below = V1
        .replace(";total_rss 16658432", ";total_rss 16662528")
        .replace(";total_cache 0", ";total_cache 4096");
    let memory = only(&below).memory.unwrap();
    assert_eq!((memory.anon_bytes, memory.file_bytes), (Some(16662528), Some(4096)));
}

#[test]
fn all_keys_in_one_record() {
    let stats = "anon 40960\nfile 20480\nkernel_stack 16384\npagetables 8192\npercpu 0\nsock 4096\nshmem 12288\nfile_mapped 0\n\
        file_dirty 0\nfile_writeback 0\nanon_thp 0\ninactive_anon 4096\nactive_anon 8192\ninactive_file 1\nactive_file 2\n\
        unevictable 3\nslab_reclaimable 5\nslab_unreclaimable 6\nslab 11";
    let report = only(&in_one_record(stats));
    let memory = report.memory.unwrap();
    assert_eq!(
        (memory.anon_bytes, memory.file_bytes, memory.shmem_bytes),
        (Some(40960), Some(20480), Some(12288))
    );
    assert_eq!((memory.kernel_bytes, memory.kernel_stack_bytes), (None, Some(16384)));
    assert_eq!((memory.slab_reclaimable_bytes, memory.slab_unreclaimable_bytes), (Some(5), Some(6)));
    assert_eq!(memory.lru, Lru { anon_bytes: Some(12288), file_bytes: Some(3), unevictable_bytes: Some(3) });
    let table = report.processes.unwrap();
    assert_eq!((table.count, table.rss_bytes), (2, 1000 * 4096));
    let rows: Vec<_> =
        table.largest.iter().map(|row| (row.pid, row.comm.as_str(), row.oom_score_adj)).collect();
    assert_eq!(rows, [(14, "a b) 1 2 3", 0), (12, "sh", -900)]);
}

/// The kernel cuts a long record, perhaps within a number.
#[test]
fn a_number_that_may_be_cut_is_not_known() {
    let long = format!(
        "anon 40960\nfile 20480\n{}\nsock 4096",
        "workingset_refault_anon 12345\n".repeat(40).trim_end()
    );
    let memory = only(&in_one_record(&long)).memory.unwrap();
    assert_eq!((memory.anon_bytes, memory.sock_bytes), (Some(40960), None));
    let short = only(&in_one_record("anon 40960\nfile 20480\nsock 4096")).memory.unwrap();
    assert_eq!(short.sock_bytes, Some(4096));
}

#[test]
fn keys_that_contradict_each_other_are_nothing() {
    assert_eq!(only(&in_one_record("anon 40960\nfile 20480\nanon 4096")).memory, None);
    assert_eq!(only(&in_one_record("anon 40960")).memory, None, "half of a report is none");
}

/// Anybody can write to the log, but not as the kernel.
#[test]
fn lines_of_others_do_not_count() {
    let forged = V1.replace(";cache 0\n", ";cache 0\n12,1,1,-;total_shmem 4096\n");
    assert_eq!(only(&forged).memory.unwrap().shmem_bytes, Some(0));
    let by_caller =
        V1.replace(",-;a,task=\\xff\\x0a x invoked", ",-,caller=T7946;a,task=\\xff\\x0a x invoked");
    assert!(reports(&by_caller).take(|_| true).is_none(), "the rest is by another writer");
}

#[test]
fn a_report_with_a_hole_is_dropped() {
    let mut reports = RunReports::new(4096);
    let (head, rest) = V1.split_at(V1.find("6,390,").unwrap());
    head.lines().for_each(|line| reports.push(line.as_bytes()));
    reports.reset();
    rest.lines().for_each(|line| reports.push(line.as_bytes()));
    assert_eq!(reports.take(|_| true), None);
    assert_eq!(reports.lost(), 1);
}

#[test]
fn the_five_largest_of_many() {
    let row = |pid: u32| {
        let rss = if pid == 500 { 9_999 } else { pid };
        format!(
            "6,{pid},1,-;[{pid:7}]     0 {pid:5} 605 {rss:8} 0 0 0    45056        0             0 p{pid}\n"
        )
    };
    let rows: String = (1..=1000).map(row).collect();
    let at = V1.find("4,").map(|_| V1.find(",1352971919").unwrap()).unwrap();
    let line = V1.get(..at).unwrap().rfind('\n').unwrap() + 1;
    let (head, rest) = V1.split_at(line);
    let table = only(&format!("{head}{rows}{rest}")).processes.unwrap();
    assert_eq!(table.count, 1001);
    let largest: Vec<_> = table.largest.iter().map(|row| row.pid).collect();
    assert_eq!(largest, [500, 7946, 1000, 999, 998]);
}

#[test]
fn what_the_reaper_wrote() {
    let reports = reports(
        "6,1,1000,-;oom_reaper: reaped process 2990 (java), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB\n\
         6,2,2000,-;oom_reaper: unable to reap pid:2991 (a) x)\n\
         6,3,2000,-;a[1]: oom_reaper: reaped process 7 (java)\n\
         14,4,3000,-;oom_reaper: reaped process 2992 (java), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB\n",
    );
    let lines: Vec<_> = reports.reaped().map(|line| (line.tid, line.reaped)).collect();
    assert_eq!(lines, [(2990, true), (2991, false)]);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_safe(records: Vec<Vec<u8>>) {
        let mut reports = reports(V1.split_at(V1.find("6,390,").unwrap()).0);
        for record in &records {
            reports.push(record);
            reports.push(&[b"6,1,1,-;".as_slice(), record].concat());
            reports.push(&[b"6,1,1,-;[".as_slice(), record].concat());
        }
    }
}

/// As Linux 6.1 wrote it in a machine of 512 MiB: first the lines of the host, then those of its nodes and zones.
const HOST: &str = "4,1,1000,-;hog invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE|__GFP_COMP|__GFP_ZERO), order=0, oom_score_adj=0\n\
    4,2,1001,-;Mem-Info:\n\
    4,3,1002,-;active_anon:90 inactive_anon:100000 isolated_anon:3\\x0a active_file:5 inactive_file:6 isolated_file:1\\x0a \
    unevictable:700 dirty:0 writeback:0\\x0a slab_reclaimable:1500 slab_unreclaimable:3000\\x0a mapped:40 shmem:90 \
    pagetables:300\\x0a sec_pagetables:0 bounce:0\\x0a kernel_misc_reclaimable:0\\x0a free:1200 free_pcp:64 free_cma:0\n\
    4,4,1003,-;Node 0 active_anon:360kB inactive_anon:400000kB kernel_stack:1200kB pagetables:1200kB all_unreclaimable? no\n\
    4,5,1004,-;Node 0 DMA free:1900kB boost:0kB min:90kB low:110kB high:130kB present:15992kB managed:15360kB\n\
    4,6,1005,-;lowmem_reserve[]: 0 440 440 440\n\
    4,7,1006,-;Node 0 DMA32 free:2900kB boost:0kB min:2600kB low:3200kB high:3900kB present:507776kB managed:470000kB\n\
    4,8,1007,-;191 total pagecache pages\n\
    4,9,1008,-;0 pages in swap cache\n\
    4,10,1009,-;Free swap  = 512kB\n\
    4,11,1010,-;Total swap = 1024kB\n\
    6,12,1011,-;Tasks state (memory values in pages):\n\
    6,13,1012,-;[  pid  ]   uid  tgid total_vm      rss pgtables_bytes swapents oom_score_adj name\n\
    6,14,1013,-;[     12]     0    12      605      300    45056        0             0 hog\n\
    6,15,1014,-;oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/a,task=hog,pid=12,uid=0\n";

#[test]
fn the_memory_of_the_host() {
    let report = only(HOST);
    let page = 4096;
    let host = report.host.unwrap();
    assert_eq!(host.free_bytes, Some(1264 * page));
    assert_eq!(
        host.lru,
        Lru {
            anon_bytes: Some(100_093 * page),
            file_bytes: Some(12 * page),
            unevictable_bytes: Some(700 * page)
        }
    );
    assert_eq!((host.file_bytes, host.shmem_bytes), (Some(191 * page), Some(90 * page)));
    assert_eq!(
        (host.slab_reclaimable_bytes, host.slab_unreclaimable_bytes),
        (Some(1500 * page), Some(3000 * page))
    );
    assert_eq!((host.swap_free_bytes, host.swap_total_bytes), (Some(512 << 10), Some(1 << 20)));
    assert_eq!((host.pagetables_bytes, host.total_bytes, host.percpu_bytes), (Some(300 * page), None, None));
    assert_eq!(report.zones, Some(Zones { free_bytes: 4800 << 10, min_bytes: 2690 << 10 }));
    assert_eq!((report.memory, report.memcg), (None, None));
}

#[test]
fn of_the_host_what_is_not_whole_does_not_count() {
    let broken = HOST.replace("Node 0 DMA32 free", "Node 0 \n4,7,1006,c;DMA32 free");
    assert_eq!((only(&broken).host, only(&broken).zones), (None, None));
    let twice = HOST.replace("free:1200 ", "free:1200 free:1201 ");
    assert_eq!(only(&twice).host, None);
    let forged = HOST.replace("shmem:90 ", "shmem:+90 ");
    assert_eq!(only(&forged).host, None);
    let without = HOST.replace("free:1200 ", "");
    assert_eq!(only(&without).host, None);
    assert_eq!(only(V1).host, None);
}
