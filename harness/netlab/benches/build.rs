//! Prints how long worlds of 2 nodes and 6 pods take to build: `cargo bench -p netlab`.

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.first().is_some_and(|arg| arg == netlab::SUBCOMMAND) {
        netlab::world_main(&args[1..]);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("failed to start a runtime");
    match runtime.block_on(netlab::measure_build(30)) {
        Ok(mut times) => {
            times.sort();
            println!(
                "world of 2 nodes and 6 pods, 30 builds: median {:.1?}, fastest {:.1?}, slowest {:.1?}",
                times[times.len() / 2],
                times[0],
                times[times.len() - 1]
            );
        }
        Err(error) => println!("not measured: {error}"),
    }
}
