//! How much memory the machine has left.

/// More than reading the largest of programs takes, bytes.
const MOST: u64 = 8 << 30;

/// What reading one program's file may take, bytes: half of what the machine could give now. Files say themselves how large
/// they are and what they unpack to.
pub fn spare_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    available_in(&text).map_or(MOST, |available| (available / 2).min(MOST))
}

fn available_in(meminfo: &str) -> Option<u64> {
    let kib = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    kib.trim().strip_suffix(" kB")?.parse().ok().map(|kib: u64| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_what_the_machine_has_left_may_be_taken() {
        assert_eq!(available_in("MemTotal:  90 kB\nMemAvailable:    3072 kB\nBuffers: 1 kB\n"), Some(3 << 20));
        assert_eq!(available_in("MemTotal: 8 kB\n"), None);
        assert!((1 << 20..=MOST).contains(&spare_memory()));
    }
}
