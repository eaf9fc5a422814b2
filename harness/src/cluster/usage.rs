//! What a process uses, as the kernel counts it.

use std::fs;

/// Memory, open files, and how long it had to wait for a CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory in bytes.
    pub memory: u64,
    /// Open files; absent where they cannot be seen.
    pub files: Option<u64>,
    /// Nanoseconds that the thread that waited longest was ready to run and did not.
    pub starved: u64,
}

impl Usage {
    /// Of a process of this machine; nothing once it ended.
    pub fn of(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))?
            .trim()
            .trim_end_matches(" kB");
        let files = fs::read_dir(format!("/proc/{pid}/fd")).ok();
        Some(Self {
            memory: resident.trim().parse::<u64>().ok()? * 1024,
            files: files.map(|files| files.count() as u64),
            starved: starved(pid).unwrap_or(0),
        })
    }
}

/// The second number of `schedstat` is the time spent waiting on a run queue.
fn starved(pid: u32) -> Option<u64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    threads
        .filter_map(|thread| {
            let text = fs::read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
            text.split_whitespace().nth(1)?.parse().ok()
        })
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_this_process() {
        let before = Usage::of(std::process::id()).expect("this process runs");
        assert!(before.memory > 1 << 20, "{before:?}");
        let held: Vec<fs::File> = (0..50)
            .map(|_| fs::File::open("/proc/self/status").expect("it is there"))
            .collect();
        let after = Usage::of(std::process::id()).expect("this process runs");
        // Other tests of this process may close files at the same time, though not that many.
        assert!(after.files.unwrap() >= before.files.unwrap() + 25);
        drop(held);
    }

    #[test]
    fn of_nobody() {
        assert_eq!(Usage::of(u32::MAX), None);
    }
}
