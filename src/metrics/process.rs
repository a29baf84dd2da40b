//! Writes process metrics under the names that Prometheus client libraries use.

use super::{Exposition, Kind};
use crate::clock::Now;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};
use std::fs;
use std::sync::LazyLock;

/// The start of the process, in seconds since 1970.
static STARTED: LazyLock<u64> = LazyLock::new(|| Now::read().unix);

/// Records the start of the process. Without this call, the time of the first scrape counts as the start.
pub(crate) fn started() {
    let _ = *STARTED;
}

/// Writes the metrics `process_*`. Omits values that the system does not provide.
pub(super) fn render(out: &mut Exposition) {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let help = "CPU time used by the process, user and system, in seconds.";
    out.family("process_cpu_seconds_total", help, Kind::Counter);
    let micros = used.tv_sec.saturating_mul(1_000_000).saturating_add(used.tv_nsec / 1_000);
    out.sample_seconds(&[], u64::try_from(micros).unwrap_or(0));
    if let Some(bytes) = resident_memory() {
        out.family("process_resident_memory_bytes", "Resident memory of the process in bytes.", Kind::Gauge);
        out.sample(&[], bytes);
    }
    if let Ok(open) = fs::read_dir("/proc/self/fd") {
        out.family("process_open_fds", "Open file descriptors of the process.", Kind::Gauge);
        // Listing the folder opens one more descriptor, which does not count.
        out.sample(&[], u64::try_from(open.count().saturating_sub(1)).unwrap_or(u64::MAX));
    }
    if let Some(most) = getrlimit(Resource::Nofile).current {
        out.family("process_max_fds", "Maximum number of open file descriptors of the process.", Kind::Gauge);
        out.sample(&[], most);
    }
    out.family("process_start_time_seconds", "Start time of the process in seconds since 1970.", Kind::Gauge);
    out.sample(&[], *STARTED);
}

/// Returns `VmRSS` of `/proc/self/status` in bytes. The kernel reports KiB (proc(5)).
fn resident_memory() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_measured() {
        started();
        let mut out = Exposition::new();
        render(&mut out);
        let text = out.finish();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
            line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
        };
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_cpu_seconds_total") >= 0.0);
        let (open, most) = (value("process_open_fds"), value("process_max_fds"));
        assert!(open >= 3.0 && open <= most, "{open} of {most}");
        assert!(value("process_start_time_seconds") > 1_700_000_000.0);
    }
}
