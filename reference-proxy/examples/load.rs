//! Measures the compiler and the kernel without an API server: `cargo run --release -p reference-proxy --example load [services] [endpoints]`.
//!
//! It changes the ruleset of the network namespace that it runs in, so it refuses to run where there are interfaces; use `unshare -Urn`.

use std::{net::Ipv4Addr, sync::Arc, time::Instant};

use reference_proxy::{
    compile::Surroundings,
    model::{Endpoint, Service, ServicePort, Slice, SlicePort, State as EndpointState},
    nft::NetlinkTable,
    ruleset::Protocol,
    state::State,
};

fn service(number: u32) -> Service {
    Service {
        cluster_ips: vec![Ipv4Addr::from(0x0a60_0000 + number + 1).into()],
        external_ips: Vec::new(),
        load_balancer_ips: Vec::new(),
        source_ranges: Vec::new(),
        ports: vec![ServicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
        }],
        affinity: None,
        internal_local: false,
        external_local: false,
        health_check_node_port: None,
    }
}

fn slice(key: &Arc<str>, number: u32, endpoints: u32, shift: u32) -> Slice {
    Slice {
        service: key.clone(),
        ports: vec![SlicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 8080,
        }],
        endpoints: (0..endpoints)
            .map(|at| Endpoint {
                ip: Ipv4Addr::from(0x0b00_0000 + number * 64 + at + shift).into(),
                state: EndpointState::Ready,
                local: false,
                for_this_node: None,
                zones: Box::default(),
            })
            .collect(),
    }
}

fn resident_megabytes() -> f64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: f64 = statm
        .split(' ')
        .nth(1)
        .and_then(|n| n.parse().ok())
        .unwrap_or(0.0);
    pages * 4096.0 / 1e6
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn main() -> std::io::Result<()> {
    let interfaces = std::fs::read_to_string("/proc/self/net/dev")?;
    if interfaces
        .lines()
        .skip(2)
        .any(|line| !line.trim_start().starts_with("lo:"))
    {
        return Err(std::io::Error::other(
            "run this in an empty network namespace: unshare -Urn",
        ));
    }
    let mut arguments = std::env::args().skip(1).filter_map(|a| a.parse().ok());
    let services: u32 = arguments.next().unwrap_or(10_000);
    let endpoints: u32 = arguments.next().unwrap_or(5);

    let start = Instant::now();
    let mut state = State::new(Surroundings::default());
    let keys: Vec<Arc<str>> = (0..services)
        .map(|n| format!("bench/s{n}").into())
        .collect();
    for (number, key) in keys.iter().enumerate() {
        state.set_service(key, Some(service(number as u32)));
        state.set_slice(key, Some(slice(key, number as u32, endpoints, 0)));
    }
    println!("store     {:8.1} ms", start.elapsed().as_secs_f64() * 1e3);
    let start = Instant::now();
    state.sync_first();
    println!(
        "compile   {:8.1} ms, {} elements, {:.0} MB",
        start.elapsed().as_secs_f64() * 1e3,
        state.element_count(),
        resident_megabytes()
    );

    let mut table = NetlinkTable::open()?;
    let start = Instant::now();
    let found = table.adopt(|| state.elements())?;
    println!(
        "load      {:8.1} ms, {} transactions, {:.0} MB ({})",
        start.elapsed().as_secs_f64() * 1e3,
        table.transactions(),
        resident_megabytes(),
        found.map(|what| what.to_string()).unwrap_or_default()
    );
    let start = Instant::now();
    let difference = table.difference(&state.elements())?;
    println!(
        "read back {:8.1} ms, {difference:?}",
        start.elapsed().as_secs_f64() * 1e3
    );

    for (what, more) in [("endpoint moved", 0), ("endpoint added", 1)] {
        let times = (0..200u32)
            .map(|round| {
                let number = (round * 7919) % services;
                let key = &keys[number as usize];
                let start = Instant::now();
                state.set_slice(key, Some(slice(key, number, endpoints + more, 40)));
                let mut work = state.sync();
                table.apply(&mut work.changes)?;
                Ok(start.elapsed().as_secs_f64() * 1e3)
            })
            .collect::<std::io::Result<Vec<f64>>>()?;
        println!("{what}: {:.3} ms median", median(times));
    }
    println!("at the end {:.0} MB", resident_megabytes());
    Ok(())
}
