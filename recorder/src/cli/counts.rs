//! Numbers that people read.

use std::fmt;

/// So many of something: `1 thread`, `2 threads`, `1,234 switches`. However a number comes by its noun, it is by this.
pub fn several(count: u64, one: &str, more: &str) -> String {
    format!("{} {}", Count(count), if count == 1 { one } else { more })
}

/// A number that people read: `1,234,567`.
pub struct Count(pub u64);

impl fmt::Display for Count {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        for (at, digit) in digits.char_indices() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                write!(out, ",")?;
            }
            write!(out, "{digit}")?;
        }
        Ok(())
    }
}

/// A size that people read: `3.4 MB`.
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
        if self.0 < 1000 {
            return write!(out, "{} bytes", self.0);
        }
        let exponent = (self.0.ilog10() / 3).min(UNITS.len() as u32);
        let value = self.0 as f64 / 1000_f64.powi(exponent as i32);
        write!(out, "{value:.1} {}", UNITS[exponent as usize - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_told_as_one() {
        for (count, text) in [(0, "0 switches"), (1, "1 switch"), (2, "2 switches"), (1_234, "1,234 switches")] {
            assert_eq!(several(count, "switch", "switches"), text);
        }
    }

    #[test]
    fn numbers_are_grouped_and_sizes_rounded() {
        for (number, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (12_345_678, "12,345,678")] {
            assert_eq!(Count(number).to_string(), text);
        }
        for (bytes, text) in [(0, "0 bytes"), (999, "999 bytes"), (1_500, "1.5 kB"), (3_400_000, "3.4 MB")] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}
