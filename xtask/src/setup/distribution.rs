//! Which Linux distribution this is, and whether it has Debian's packages.

use std::fs;

/// What `os-release` tells, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
pub struct Distribution {
    /// Its name and version, for people.
    pub name: String,
    /// Whether packages are Debian's, by name, and installed by apt-get.
    pub debian: bool,
}

impl Distribution {
    pub fn detect() -> Self {
        let text = fs::read_to_string("/etc/os-release").or_else(|_| fs::read_to_string("/usr/lib/os-release"));
        // Without the file the distribution is merely unknown.
        let told = Self::parse(&text.unwrap_or_default());
        Self { debian: told.debian && which::which("apt-get").is_ok(), ..told }
    }

    /// Reads os-release(5): `NAME=value` lines, the value perhaps in quotes.
    fn parse(text: &str) -> Self {
        let value = |wanted: &str| {
            let value = text.lines().find_map(|line| line.trim().strip_prefix(wanted)?.strip_prefix('='))?;
            Some(value.trim_matches(['"', '\'']))
        };
        let families = [value("ID"), value("ID_LIKE")];
        let debian = families.into_iter().flatten().flat_map(str::split_whitespace).any(|family| family == "debian");
        let name = value("PRETTY_NAME").or(value("NAME")).unwrap_or("this distribution");
        Self { name: name.to_owned(), debian }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distribution_is_told_by_os_release() {
        let cases = [
            ("PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n", "Debian GNU/Linux 12 (bookworm)", true),
            ("ID=ubuntu\nID_LIKE=debian\nPRETTY_NAME='Ubuntu 24.04 LTS'\n", "Ubuntu 24.04 LTS", true),
            ("NAME=Mint\nID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", "Mint", true),
            ("NAME=\"Fedora Linux\"\nID=fedora\nVARIANT_ID=debian\n", "Fedora Linux", false),
            ("# nothing\n", "this distribution", false),
            ("", "this distribution", false),
        ];
        for (text, name, debian) in cases {
            assert_eq!(Distribution::parse(text), Distribution { name: name.to_owned(), debian }, "{text}");
        }
    }
}
