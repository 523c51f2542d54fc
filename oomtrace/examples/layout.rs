fn main() {
    let t = std::time::Instant::now();
    let bytes = std::fs::read(std::env::args().nth(1).unwrap()).unwrap();
    let t1 = t.elapsed();
    let btf = oomtrace::kernel::btf::Btf::parse(bytes).unwrap();
    let t2 = t.elapsed();
    let r = oomtrace::kernel::layout::resolve(&btf, 0);
    println!("{t1:?} {t2:?} {:?}\n{:#?}", t.elapsed(), r);
}
